//! Entries as lines of JSON, however many there are.

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use clawcoil::audit;
use futures_util::stream;
use tokio::sync::mpsc;

use super::filter::Wanted;
use super::reading;
use crate::console::trouble::Trouble;
use crate::serve::{Kind, Problem, Shared};

/// So many bytes are handed over at once.
const CHUNK: usize = 64 << 10;

/// All entries that are asked for, oldest first, as a file. A log that can't be read to its end ends the answer early, so that
/// the browser says that the file is not whole.
pub(in super::super) async fn export(
    State(app): State<Shared>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Trouble> {
    let mut filter = wanted.filter(app.host.clock().now()).map_err(|why| Problem::new(Kind::Invalid, why))?;
    filter.without_opened = false;
    let name = format!("audit-{}.jsonl", app.host.clock().now().strftime("%Y%m%dT%H%M%SZ"));
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    let failed = sender.clone();
    let task = {
        let app = std::sync::Arc::clone(&app);
        async move {
            let written = reading(&app, move |folder, key| {
                let mut lines = Vec::with_capacity(CHUNK);
                for entry in audit::entries(folder, key, &filter)? {
                    lines.extend_from_slice(entry?.exported().as_bytes());
                    lines.push(b'\n');
                    // A reader who has gone wants no more.
                    if lines.len() >= CHUNK && sender.blocking_send(Ok(std::mem::take(&mut lines).into())).is_err() {
                        return Ok(());
                    }
                }
                let _ = sender.blocking_send(Ok(lines.into()));
                Ok::<(), std::io::Error>(())
            });
            if let Ok(Err(error)) = written.await {
                tracing::error!(%error, "the audit log can't be exported");
                let _ = failed.send(Err(error)).await;
            }
        }
    };
    tokio::spawn(task);
    let body = Body::from_stream(stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    }));
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, body).into_response())
}
