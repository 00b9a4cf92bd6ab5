//! The whole case matrix, from a folder that is too large to commit; `scripts/parity-matrix` drives it.

use std::fmt::Write as _;
use std::path::PathBuf;

use candle_core::DType;

use crate::case::{Case, Folders};
use crate::compare::allowed;
use crate::pipelines::{load, run};

/// One line of the table.
struct Line {
    case: String,
    latents: f64,
    allowed: f64,
    picture: f64,
    verdict: Result<(), String>,
}

fn folders() -> Option<Folders> {
    let root = PathBuf::from(std::env::var_os("INFILL_PARITY_DIR")?);
    Some(Folders { models: root.join("models"), images: root.join("images"), reference: root.join("ref") })
}

#[test]
fn every_case_of_the_matrix() {
    let Some(folders) = folders() else {
        println!("INFILL_PARITY_DIR is not set: only the committed cases were compared");
        return;
    };
    let only = std::env::var("INFILL_PARITY_ONLY").unwrap_or_default();
    let mut cases: Vec<Case> = folders
        .cases()
        .iter()
        .filter(|name| name.contains(&only))
        .map(|name| Case::read(&folders, name))
        .collect();
    cases.sort_by(|a, b| (&a.model, &a.name).cmp(&(&b.model, &b.name)));
    assert!(!cases.is_empty(), "no cases in {}", folders.reference.display());

    let mut lines = Vec::new();
    for group in cases.chunk_by(|a, b| a.model == b.model) {
        let mut pipeline = load(&folders, &group[0].model);
        for case in group {
            let outcome = run(&folders, &mut pipeline, case);
            let line = line(case, outcome, pipeline.dtype());
            println!("{:36} {:9.2e} of {:9.2e} {:?}", line.case, line.latents, line.allowed, line.verdict);
            lines.push(line);
        }
    }
    if let Some(path) = std::env::var_os("INFILL_PARITY_TABLE") {
        std::fs::write(path, table(&lines)).unwrap();
    }
    let failed: Vec<_> =
        lines.iter().filter_map(|l| l.verdict.as_ref().err().map(|e| format!("{}: {e}", l.case))).collect();
    assert!(failed.is_empty(), "{} of {} cases differ\n{}", failed.len(), lines.len(), failed.join("\n"));
}

/// A case that diffusers refuses must be refused here too, with a sentence of our own.
fn line(case: &Case, outcome: infill_engine::Result<crate::compare::Report>, dtype: DType) -> Line {
    let empty = Line { case: case.name.clone(), latents: 0.0, allowed: 0.0, picture: 0.0, verdict: Ok(()) };
    match (outcome, &case.error) {
        (Err(_), Some(_)) => empty,
        (Err(e), None) => Line { verdict: Err(format!("refused: {e}")), ..empty },
        (Ok(_), Some(e)) => Line { verdict: Err(format!("ran, where diffusers says {e}")), ..empty },
        (Ok(report), None) => Line {
            latents: report.worst("/latents"),
            allowed: allowed(case, "step.0/latents", dtype),
            picture: report.worst("out/image_u8"),
            verdict: report.first_difference().map_or(Ok(()), |row| Err(format!("first at {row}"))),
            ..empty
        },
    }
}

/// The table in Markdown: latents in noise floors, the picture in steps of 255.
fn table(lines: &[Line]) -> String {
    let passed = lines.iter().filter(|l| l.verdict.is_ok()).count();
    let mut out = format!("{passed} of {} cases agree.\n\n", lines.len());
    out += "| case | latents, largest difference | noise floor | floors away (10 allowed) | picture, of 255 | |\n";
    out += "|---|---|---|---|---|---|\n";
    for l in lines {
        let verdict = l.verdict.as_ref().map_or_else(|e| format!("**differs** {e}"), |()| "agrees".into());
        if l.allowed == 0.0 {
            let _ = writeln!(
                out,
                "| {} | | | | | {} |",
                l.case,
                verdict.replace("agrees", "refused, as by diffusers")
            );
        } else {
            let floor = l.allowed / 10.0;
            let (away, picture) = (l.latents / floor, l.picture);
            let _ = writeln!(
                out,
                "| {} | {:.2e} | {floor:.2e} | {away:.2} | {picture} | {verdict} |",
                l.case, l.latents
            );
        }
    }
    out
}
