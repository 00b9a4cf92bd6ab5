//! The protocol's side of the server: what it offers, and one task per call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams, CompleteResult,
    CustomRequest, CustomResult, ErrorCode, ErrorData, GetPromptRequestParams, GetPromptResponse,
    GetTaskParams, GetTaskResult, Icon, Implementation, ListPromptsResult, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, ServerCapabilities, ServerConfig, Tool, UpdateTaskParams,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};
use tokio::sync::watch;

use crate::arguments::show_text;
use crate::studio::Studio;
use crate::tools::{Action, get_assets_by_asset_id, get_job_id};
use crate::{call, completion, inside, prompts, resources, tasks};

const INSTRUCTIONS: &str = "infill repaints parts of pictures on this machine, offline. Call post-inpaint-inferences \
with a picture, a mask of the same size (white where to paint, black where to keep) and a prompt; call \
post-inpaint-ip-adapter-inferences where reference pictures show how it should look. Pictures are given as asset ids or \
links out of earlier results, as file:// URLs under the folders that the server allows, or as data URLs; to work on a \
result, give its asset id as the next image. Check arguments without running them with dryRun \"true\". A run may take minutes on a \
CPU: ask for progress, and begin with numSamples 1. A call that takes longer than the server lets it wait is answered \
with its job, which goes on: get-job-id gives its pictures later. get-assets-by-asset-id shows a stored picture; \
asset://ID, job://ID and model://ID are resources.";

/// Requests that this server answers: parameters that it can't read are not an unknown method.
const METHODS: [&str; 13] = [
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "completion/complete",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
];
/// Those of them that only protocols with sessions have.
const OF_SESSIONS: [&str; 2] = ["initialize", "ping"];

/// One client's server; clones share all of it.
#[derive(Clone)]
pub(crate) struct Server {
    studio: Arc<Studio>,
    tools: Vec<Tool>,
    running: Arc<AtomicUsize>,
    /// Closes with the input, or when the server ends.
    input: watch::Receiver<()>,
}

impl Server {
    pub(crate) fn new(studio: Arc<Studio>, tools: Vec<Tool>, input: watch::Receiver<()>) -> Self {
        Self { studio, tools, running: Arc::default(), input }
    }

    /// What a model is told before it calls anything.
    fn instructions(&self) -> String {
        let holdings = &self.studio.holdings;
        let mut text = format!("{INSTRUCTIONS} modelId is {}.", holdings.models_here());
        if let Some(hint) = holdings.concepts_hint() {
            text.push(' ');
            text.push_str(&hint);
        }
        text
    }

    /// Does what reads the store or a model's files; see [`inside::blocking`].
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Studio) -> Result<T, ErrorData> + Send + 'static,
    ) -> Result<T, ErrorData> {
        let studio = self.studio.clone();
        inside::blocking(move || work(&studio)).await
    }

    /// How many calls are not answered, also after the session.
    pub(crate) fn running(&self) -> Arc<AtomicUsize> {
        self.running.clone()
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let implementation = Implementation::new("infill", env!("CARGO_PKG_VERSION"))
            .with_title("infill")
            .with_description("Offline inpainting with SDXL and SD 1.5")
            .with_icons(vec![icon()]);
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_prompts()
            .enable_resources()
            .enable_completions()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(implementation)
            .with_instructions(self.instructions())
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.clone()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(action) = Action::named(&request.name) else {
            let names: Vec<&str> = self.tools.iter().map(|tool| tool.name.as_ref()).collect();
            let message =
                format!("there is no tool {}; allowed: {}", show_text(&request.name), names.join(", "));
            return Err(ErrorData::invalid_params(message, None));
        };
        let given = request.arguments.unwrap_or_default();
        let _running = Running::new(&self.running);
        let studio = self.studio.clone();
        let result = match action {
            Action::Paint(kind) => {
                return call::paint(studio, kind, given, &context, &mut self.input.clone()).await;
            }
            Action::GetJob => call::look(move || get_job_id::answer(&studio, &given)).await,
            Action::GetAsset => call::look(move || get_assets_by_asset_id::answer(&studio, &given)).await,
        };
        Ok(CallToolResponse::from(result))
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        tasks::get(self.studio.clone(), request.task_id).await
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        tasks::update(self.studio.clone(), request.task_id).await
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        tasks::cancel(self.studio.clone(), request.task_id).await
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(prompts::list()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let filled =
            self.blocking(move |studio| prompts::get(studio, &request.name, request.arguments.as_ref()));
        filled.await.map(GetPromptResponse::from)
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let cursor = request.and_then(|request| request.cursor);
        let (page, next) = self.blocking(move |studio| resources::list(studio, cursor.as_deref())).await?;
        let mut result = ListResourcesResult::with_all_items(page);
        result.next_cursor = next;
        Ok(result)
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let contents = self.blocking(move |studio| resources::read(studio, &request.uri)).await?;
        Ok(ReadResourceResult::new(contents).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        self.blocking(move |studio| completion::complete(studio, &request)).await.map(CompleteResult::new)
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        let method = request.method.as_str();
        let has_sessions = context.protocol_version().is_none_or(|version| version.has_initialize());
        // A known method arrives here if its parameters have another form than the protocol's.
        if METHODS.contains(&method) && (has_sessions || !OF_SESSIONS.contains(&method)) {
            let message =
                format!("the params of {} have not the form that the protocol gives them", request.method);
            return Err(ErrorData::invalid_params(message, None));
        }
        let message = format!("there is no method {}", show_text(method));
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, message, None))
    }
}

/// The icon of the page, as a host takes it without asking anybody for it.
pub(crate) fn icon() -> Icon {
    let data = STANDARD.encode(include_bytes!("page/icon.svg"));
    Icon::new(format!("data:image/svg+xml;base64,{data}"))
        .with_mime_type("image/svg+xml")
        .with_sizes(vec!["any".into()])
}

/// Counts a run for as long as it lives.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn new(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::AcqRel);
        Self(running.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
