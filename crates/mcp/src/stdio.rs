//! The wire over standard streams: one JSON-RPC message per line.
//!
//! The SDK's own transport drops a line over its limit, and one that is no JSON, without a word, so that the client
//! waits for ever. This one takes lines of 64 MiB, since pictures arrive inside them, and answers every request that
//! it can't take.

use std::io;
use std::sync::Arc;

use rmcp::model::{ErrorCode, ErrorData, JsonRpcMessage};
use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Mutex, mpsc, watch};

use crate::envelope::{IdScanner, id_of};

/// The longest line, without its end.
pub(crate) const MAX_LINE: usize = 64 * 1024 * 1024;

/// Messages that were read and not yet taken: few, for each may be long.
const WAITING: usize = 2;

/// Where the answers go; `None` once closed.
type Output<W> = Arc<Mutex<Option<W>>>;

/// A reader task that feeds a channel, and the shared output.
pub(crate) struct LineTransport<W> {
    messages: mpsc::Receiver<RxJsonRpcMessage<RoleServer>>,
    output: Output<W>,
    /// Set once the client has asked for anything: until then only requests make sense.
    begun: bool,
}

impl<W: AsyncWrite + Send + Unpin + 'static> LineTransport<W> {
    /// Reads `input` on a task of its own, which keeps `open` until the input ends; call it within a runtime.
    pub(crate) fn new(
        input: impl AsyncRead + Send + Unpin + 'static,
        output: W,
        open: watch::Sender<()>,
    ) -> Self {
        let output = Arc::new(Mutex::new(Some(output)));
        let (sender, messages) = mpsc::channel(WAITING);
        let reader = LineReader { input: BufReader::new(input), line: Vec::new() };
        let reading = read_messages(reader, sender, output.clone());
        tokio::spawn(async move {
            reading.await;
            drop(open);
        });
        Self { messages, output, begun: false }
    }
}

impl<W: AsyncWrite + Send + Unpin + 'static> Transport<RoleServer> for LineTransport<W> {
    type Error = io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let output = self.output.clone();
        async move { write_message(&output, &message).await }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let message = self.messages.recv().await?;
            self.begun |= matches!(message, JsonRpcMessage::Request(_));
            if self.begun {
                return Some(message);
            }
            tracing::debug!("a message before the first request is passed over");
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.output.lock().await.take();
        Ok(())
    }
}

async fn write_message<W: AsyncWrite + Unpin>(
    output: &Output<W>,
    message: &TxJsonRpcMessage<RoleServer>,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut output = output.lock().await;
    let closed = || io::Error::new(io::ErrorKind::NotConnected, "the output is closed");
    let output = output.as_mut().ok_or_else(closed)?;
    output.write_all(&line).await?;
    output.flush().await
}

/// Ends with the input, or when nobody takes the messages any more.
async fn read_messages<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    mut reader: LineReader<R>,
    messages: mpsc::Sender<RxJsonRpcMessage<RoleServer>>,
    output: Output<W>,
) {
    loop {
        let refusal = match reader.next().await {
            Ok(Some(Line::Whole)) => match parse(reader.line()) {
                Ok(None) => continue,
                Ok(Some(message)) => {
                    if messages.send(*message).await.is_err() {
                        return;
                    }
                    continue;
                }
                Err(refusal) => refusal,
            },
            Ok(Some(Line::TooLong { bytes, scanner })) => {
                let text = format!(
                    "the message is {bytes} bytes long; allowed: up to {MAX_LINE}; give a large picture as an asset id or a file:// URL"
                );
                let error = ErrorData::new(ErrorCode::INVALID_REQUEST, text, None);
                Box::new(TxJsonRpcMessage::<RoleServer>::error(error, scanner.id()))
            }
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "the input can't be read");
                return;
            }
        };
        if write_message(&output, &refusal).await.is_err() {
            return;
        }
    }
}

/// A message, nothing where the line needs no answer, or the answer to a line that is none.
fn parse(
    line: &[u8],
) -> Result<Option<Box<RxJsonRpcMessage<RoleServer>>>, Box<TxJsonRpcMessage<RoleServer>>> {
    let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line).trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let error = match serde_json::from_slice(line) {
        Ok(message) => return Ok(Some(Box::new(message))),
        Err(error) => error,
    };
    let (code, text) = match error.classify() {
        // A notification that the protocol does not know is nobody's mistake.
        serde_json::error::Category::Data if is_notification(line) => return Ok(None),
        serde_json::error::Category::Data => (
            ErrorCode::INVALID_REQUEST,
            "the message is not a request, a response or a notification of JSON-RPC 2.0",
        ),
        _ => (ErrorCode::PARSE_ERROR, "the line is not JSON"),
    };
    tracing::debug!(%error, "a line is refused");
    let text = format!("{text}: {error}");
    Err(Box::new(TxJsonRpcMessage::<RoleServer>::error(ErrorData::new(code, text, None), id_of(line))))
}

/// An id that is none, such as null, still asks for an answer.
fn is_notification(line: &[u8]) -> bool {
    let message = serde_json::from_slice::<serde_json::Value>(line);
    message.is_ok_and(|message| message.get("method").is_some() && message.get("id").is_none())
}

/// What [`LineReader::next`] found.
enum Line {
    /// A line that [`LineReader::line`] holds.
    Whole,
    /// A line that was longer than allowed and is gone, all but its id.
    TooLong { bytes: usize, scanner: IdScanner },
}

struct LineReader<R> {
    input: BufReader<R>,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    fn line(&self) -> &[u8] {
        &self.line
    }

    /// The next line; `None` at the end of the input. A last line without an end counts.
    async fn next(&mut self) -> io::Result<Option<Line>> {
        self.line.clear();
        // Memory that one long line took is not kept for ever.
        self.line.shrink_to(1 << 20);
        let mut too_long: Option<(usize, IdScanner)> = None;
        loop {
            let available = self.input.fill_buf().await?;
            if available.is_empty() && self.line.is_empty() && too_long.is_none() {
                return Ok(None);
            }
            let end = available.iter().position(|b| *b == b'\n');
            let ends = end.is_some() || available.is_empty();
            let piece = &available[..end.unwrap_or(available.len())];
            if too_long.is_none() && self.line.len() + piece.len() > MAX_LINE {
                let mut scanner = IdScanner::default();
                scanner.feed(&self.line);
                too_long = Some((self.line.len(), scanner));
                self.line = Vec::new();
            }
            match &mut too_long {
                Some((bytes, scanner)) => {
                    *bytes += piece.len();
                    scanner.feed(piece);
                }
                None => self.line.extend_from_slice(piece),
            }
            let consumed = piece.len() + usize::from(end.is_some());
            self.input.consume(consumed);
            if ends {
                return Ok(Some(match too_long {
                    Some((bytes, scanner)) => Line::TooLong { bytes, scanner },
                    None => Line::Whole,
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    struct Wire {
        transport: LineTransport<DuplexStream>,
        answers: DuplexStream,
    }

    /// Sends these lines and then the end.
    fn wire(lines: Vec<u8>) -> Wire {
        let (mut to, input) = duplex(1 << 16);
        let (output, answers) = duplex(1 << 16);
        tokio::spawn(async move {
            to.write_all(&lines).await.unwrap();
        });
        Wire { transport: LineTransport::new(input, output, watch::channel(()).0), answers }
    }

    async fn answers(mut wire: Wire) -> Vec<serde_json::Value> {
        while wire.transport.receive().await.is_some() {}
        wire.transport.close().await.unwrap();
        drop(wire.transport);
        let mut text = String::new();
        wire.answers.read_to_string(&mut text).await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn ping(id: u32, padding: usize) -> Vec<u8> {
        let padding = " ".repeat(padding);
        format!("{{\"jsonrpc\":\"2.0\",{padding}\"method\":\"ping\",\"id\":{id}}}\n").into_bytes()
    }

    #[tokio::test]
    async fn a_line_of_the_longest_length_is_taken_and_one_byte_more_is_answered() {
        let bare = ping(1, 0).len() - 1;
        let mut lines = ping(1, MAX_LINE - bare);
        lines.extend(ping(2, MAX_LINE - bare + 1));
        lines.extend(ping(3, 0));
        let mut wire = wire(lines);
        for expected in [1, 3] {
            let Some(JsonRpcMessage::Request(request)) = wire.transport.receive().await else {
                panic!("request {expected} is missing")
            };
            assert_eq!(request.id, rmcp::model::RequestId::Number(expected));
        }
        let answers = answers(wire).await;
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0]["id"], 2);
        assert!(answers[0]["error"]["message"].as_str().unwrap().contains("67108865 bytes"));
    }

    #[tokio::test]
    async fn what_is_no_message_is_answered_and_the_session_goes_on() {
        let deep = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"ping\",\"params\":{}1{}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let lines = format!(
            "\n \r\nnonsense\n{{\"jsonrpc\":\"2.0\",\"id\":4\n{deep}\n[1,2]\n{{\"id\":6}}\n{{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":12}}\n{{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}}\n{{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"ping\"}}\n\u{feff}"
        );
        let mut lines = lines.into_bytes();
        lines.extend(b"\xff\xfe\n");
        lines.extend(ping(8, 0));
        let mut wire = wire(lines);
        let Some(JsonRpcMessage::Request(request)) = wire.transport.receive().await else {
            panic!("no request")
        };
        assert_eq!(request.id, rmcp::model::RequestId::Number(8));
        let answers = answers(wire).await;
        let ids: Vec<_> = answers.iter().map(|a| a["id"].as_u64()).collect();
        assert_eq!(ids, [None, Some(4), Some(5), None, Some(6), Some(7), None, None, None]);
        assert!(answers.iter().all(|a| a["error"]["code"].is_i64()));
    }

    #[tokio::test]
    async fn notifications_before_the_first_request_end_nothing() {
        let mut lines = b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n".to_vec();
        lines.extend(ping(1, 0));
        let mut wire = wire(lines);
        assert!(matches!(wire.transport.receive().await, Some(JsonRpcMessage::Request(_))));
        assert!(answers(wire).await.is_empty());
    }
}
