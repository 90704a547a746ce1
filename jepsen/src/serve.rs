//! Lets a browser look at the store.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::timeline::escape;

/// Longest request that is read.
const REQUEST_BYTES: usize = 8 * 1024;

/// Serves the store until the process ends.
///
/// # Errors
/// If the address cannot be had.
pub async fn serve(store: &Path, listen: &str) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| listen.to_owned())?;
    crate::say(&format!("http://{}/", listener.local_addr()?));
    loop {
        let (stream, _) = listener.accept().await?;
        let store = store.to_owned();
        tokio::spawn(async move {
            // Who goes away in the middle has seen enough.
            let _ = answer(stream, &store).await;
        });
    }
}

async fn answer(mut stream: TcpStream, store: &Path) -> Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_BYTES {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or("/");
    let (status, kind, body) = match inside(store, path) {
        Some(file) if file.is_dir() => ("200 OK", "text/html; charset=utf-8", listing(&file, path).into_bytes()),
        Some(file) if file.is_file() => ("200 OK", content_type(&file), tokio::fs::read(&file).await?),
        _ => ("404 Not Found", "text/plain", b"there is no such file\n".to_vec()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    Ok(stream.shutdown().await?)
}

/// The file that a path means; `None` if it leads out of the store.
fn inside(store: &Path, path: &str) -> Option<PathBuf> {
    let path = path.split('?').next()?.trim_start_matches('/').replace("%2B", "+");
    let path = Path::new(&path);
    let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
    (stays || path.as_os_str().is_empty()).then(|| store.join(path))
}

fn content_type(file: &Path) -> &'static str {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "text/plain; charset=utf-8",
    }
}

fn listing(dir: &Path, path: &str) -> String {
    let mut rows: Vec<String> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let results = std::fs::read_to_string(entry.path().join("results.json")).unwrap_or_default();
            let valid = serde_json::from_str::<serde_json::Value>(&results).map_or_else(
                |_| String::new(),
                |results| format!(" {} <a href=\"{name}/report.html\">report</a>", results["valid"]),
            );
            let slash = if entry.path().is_dir() { "/" } else { "" };
            format!("<li><a href=\"{0}{slash}\">{0}</a>{valid}</li>", escape(&name))
        })
        .collect();
    rows.sort();
    rows.reverse();
    format!("<!doctype html><meta charset=\"utf-8\"><h1>{}</h1><ul>{}</ul>\n", escape(path), rows.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_of_the_store_is_served() {
        let store = Path::new("/store");
        let table = [
            ("/", Some("/store/")),
            ("/a/b.svg?x=1", Some("/store/a/b.svg")),
            ("/../etc/passwd", None),
            ("/a/../../b", None),
            ("//etc/passwd", Some("/store/etc/passwd")),
        ];
        for (path, file) in table {
            assert_eq!(inside(store, path).as_deref(), file.map(Path::new), "{path}");
        }
    }
}
