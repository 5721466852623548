//! The dashboard that the chart ships.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The title and the expressions of every panel, with the dashboard's variables filled in.
///
/// # Errors
/// The dashboard cannot be read, or has a variable that is not known here.
pub fn expressions() -> Result<Vec<(String, String)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/netkeel/dashboards/cluster-overview.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let dashboard: serde_json::Value = serde_json::from_str(&text)?;
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().into_iter().flatten() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let (title, text) = (&panel["title"], target["expr"].as_str().context("an expression is text")?);
            let text = text.replace("$__rate_interval", "1m").replace("$node", ".+");
            ensure!(!text.contains('$'), "a variable without a value: {text}");
            found.push((title.as_str().unwrap_or_default().to_owned(), text));
        }
    }
    ensure!(found.len() > 10, "the dashboard has {} expressions", found.len());
    Ok(found)
}
