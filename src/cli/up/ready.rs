//! Waits until every node says that it is ready.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::log::Terminal;
use super::plan::{Node, Plan};

/// Milliseconds between two questions: shorter than a person notices.
const ASK_MS: u64 = 100;
/// Milliseconds for one question.
const ANSWER_MS_MAX: u64 = 1_000;
/// Milliseconds after which a person is told what is being waited for, and again each time.
const IMPATIENCE_MS: u64 = 10_000;
/// Bytes of an answer to `/readyz` that are read.
const ANSWER_BYTES_MAX: u64 = 4_096;

/// Returns when every node has said once that it is ready.
pub(super) async fn wait(plan: &Plan, terminal: &Terminal) {
    for node in &plan.nodes {
        let mut asked = 0;
        while let Err(why) = ask(node).await {
            asked += 1;
            if asked % (IMPATIENCE_MS / ASK_MS) == 0 {
                terminal.print(&format!("trine: waiting for {}: {why}", node.name));
            }
            tokio::time::sleep(Duration::from_millis(ASK_MS)).await;
        }
    }
}

/// Asks a node.
///
/// # Errors
/// Why it is not ready.
async fn ask(node: &Node) -> Result<(), String> {
    match tokio::time::timeout(Duration::from_millis(ANSWER_MS_MAX), answer(&node.queue_http)).await {
        Ok(Ok(text)) if text.starts_with("HTTP/1.1 200 ") => Ok(()),
        Ok(Ok(text)) => Err(text.lines().last().unwrap_or("an empty answer").to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

async fn answer(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text).await?;
    Ok(text)
}
