//! Whether policy lets traffic pass and who decides, from the objects alone: it works with every program of Netkeel down.

mod answer;
mod question;
mod render;
mod source;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::Result;

pub(crate) use answer::{Answer, answer};
pub(crate) use question::{End, Target};
pub(crate) use render::render;
use source::Objects;

use crate::lister::Lister;

/// Asks the API server that kubectl would ask, or a file of objects.
pub(crate) async fn ask(
    context: Option<&str>,
    file: Option<&Path>,
    from: &End,
    target: &Target,
) -> Result<Answer> {
    let objects = match file {
        Some(path) => Objects::of_file(path)?,
        None => Objects::of_cluster(Lister::new(netkeel_client::connect_as_user(context).await?)).await?,
    };
    answer(&objects, from, target)
}
