//! The program of the demo's image: answers HTTP on port 80 with the task it runs in, and logs each request.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

fn main() {
    let task = task_id().unwrap_or_else(|| "unknown".to_owned());
    let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(80);
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port must be free");
    println!("task {task} listens on port {port}");
    for stream in listener.incoming().flatten() {
        let task = task.clone();
        thread::spawn(move || answer(stream, &task));
    }
}

/// The task's id, asked of the task metadata endpoint.
fn task_id() -> Option<String> {
    let uri = env::var("ECS_CONTAINER_METADATA_URI_V4").ok()?;
    let (host, path) = uri.strip_prefix("http://")?.split_once('/')?;
    let mut stream = TcpStream::connect((host, 80)).ok()?;
    write!(stream, "GET /{path}/task HTTP/1.0\r\nHost: {host}\r\n\r\n").ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    let arn = page.split("\"TaskARN\":\"").nth(1)?.split('"').next()?;
    arn.rsplit('/').next().map(str::to_owned)
}

/// Answers the requests of one connection. What breaks ends only this connection.
fn answer(stream: TcpStream, task: &str) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.by_ref().take(8192).read_line(&mut request).ok()? == 0 {
            return None;
        }
        let mut close = request.contains("HTTP/1.0");
        loop {
            let mut header = String::new();
            if reader.by_ref().take(8192).read_line(&mut header).ok()? <= 2 {
                break;
            }
            close |= header.to_ascii_lowercase().starts_with("connection: close");
        }
        println!("{}", request.trim_end());
        let body = format!("hello from task {task}\n");
        write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .ok()?;
        if close {
            return None;
        }
    }
}
