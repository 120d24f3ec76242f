//! Redis, if its server is installed: a separate process, reached through a Unix socket.

use crate::peer::{Level, Peer, Session, Store};
use crate::work::{key, look, value};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

const SERVER: &str = "redis-server";

/// The version of the installed server, if there is one.
pub fn version() -> Option<String> {
    let output = Command::new(SERVER).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().find_map(|word| word.strip_prefix("v=")).map(str::to_owned)
}

pub fn peer() -> Peer {
    Peer {
        name: "Redis",
        package: "",
        durable: Some("`appendonly yes`, `appendfsync always`"),
        buffered: Some("`appendonly yes`, `appendfsync no`"),
        note: "a server in a process of its own, through a Unix socket, one request in flight for each thread; it keeps no order of \
               keys, so it has no scans; batches are `MULTI` and `EXEC`",
        reads: true,
        scans: false,
        held: false,
        open,
    }
}

/// A running server.
pub struct Server {
    child: Mutex<Child>,
    socket: PathBuf,
}

impl Server {
    /// Starts a server in a directory, and waits until it has loaded the data there.
    pub fn start(dir: &Path, options: &[&str]) -> Server {
        let socket = dir.join("socket");
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new(SERVER);
        command.args(["--port", "0", "--unixsocket"]).arg(&socket).arg("--dir").arg(dir);
        // no automatic rewrite, so that the file has exactly what was written
        command.args(["--auto-aof-rewrite-percentage", "0", "--save", "", "--daemonize", "no"]).args(options);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server");
        let server = Server { child: Mutex::new(child), socket };
        while !server.answers() {
            std::thread::sleep(Duration::from_millis(1));
        }
        server
    }

    fn answers(&self) -> bool {
        let Ok(stream) = UnixStream::connect(&self.socket) else { return false };
        let mut connection = Connection::over(stream);
        connection.ask(&[b"PING"]).is_some_and(|reply| reply == Reply::Simple)
    }

    pub fn connect(&self) -> Connection {
        Connection::over(UnixStream::connect(&self.socket).expect("a connection"))
    }

    /// Kills the server; nothing is saved.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("a server");
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Debug, PartialEq)]
pub enum Reply {
    Simple,
    Number,
    Bytes(Option<Vec<u8>>),
    Many,
}

pub struct Connection {
    reader: BufReader<UnixStream>,
    out: Vec<u8>,
}

impl Connection {
    fn over(stream: UnixStream) -> Connection {
        Connection { reader: BufReader::new(stream), out: Vec::new() }
    }

    fn queue(&mut self, words: &[&[u8]]) {
        let _ = write!(self.out, "*{}\r\n", words.len());
        for word in words {
            let _ = write!(self.out, "${}\r\n", word.len());
            self.out.extend_from_slice(word);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn send(&mut self) -> Option<()> {
        self.reader.get_mut().write_all(&self.out).ok()?;
        self.out.clear();
        Some(())
    }

    /// One reply. `None` if it is an error or the connection ended.
    fn reply(&mut self) -> Option<Reply> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok()?;
        let (kind, rest) = line.trim_end().split_at_checked(1)?;
        match kind {
            "+" => Some(Reply::Simple),
            ":" => Some(Reply::Number),
            "$" if rest == "-1" => Some(Reply::Bytes(None)),
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().ok()? + 2];
                self.reader.read_exact(&mut bytes).ok()?;
                bytes.truncate(bytes.len() - 2);
                Some(Reply::Bytes(Some(bytes)))
            }
            "*" => (0..rest.parse::<usize>().ok()?).try_for_each(|_| self.reply().map(drop)).map(|()| Reply::Many),
            _ => None,
        }
    }

    pub fn ask(&mut self, words: &[&[u8]]) -> Option<Reply> {
        self.queue(words);
        self.send()?;
        self.reply()
    }

    /// A figure of `INFO memory`.
    pub fn memory(&mut self, figure: &str) -> Option<u64> {
        let Some(Reply::Bytes(Some(text))) = self.ask(&[b"INFO", b"memory"]) else { return None };
        let text = String::from_utf8(text).ok()?;
        text.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')?.trim().parse().ok())
    }
}

fn open(dir: &Path, level: Level) -> Box<dyn Store> {
    let fsync = if level == Level::Durable { "always" } else { "no" };
    // a snapshot without a log means that it was closed; it is loaded only if the log is disabled
    let closed = dir.join("dump.rdb").exists() && !dir.join("appendonlydir").exists();
    if closed {
        return Box::new(Server::start(dir, &["--appendonly", "no"]));
    }
    Box::new(Server::start(dir, &["--appendonly", "yes", "--appendfsync", fsync]))
}

impl Store for Server {
    fn session(&self) -> Box<dyn Session + '_> {
        Box::new(self.connect())
    }

    fn kill(&self) {
        Server::kill(self);
    }

    fn close(self: Box<Self>) {
        // the next start then loads only the snapshot
        self.connect().ask(&[b"SAVE"]).expect("a snapshot");
        Server::kill(&self);
        let dir = self.socket.parent().expect("a directory");
        let _ = std::fs::remove_dir_all(dir.join("appendonlydir"));
    }

    fn resident_bytes(&self) -> Option<u64> {
        self.connect().memory("used_memory_rss")
    }
}

impl Session for Connection {
    fn put(&mut self, n: u64, seed: u64) {
        let reply = self.ask(&[b"SET", &key(n), &value(seed)]);
        assert_eq!(reply, Some(Reply::Simple));
    }

    fn batch(&mut self, first: u64, entries: u64, seed: u64) {
        self.queue(&[b"MULTI"]);
        for n in first..first + entries {
            self.queue(&[b"SET", &key(n), &value(n ^ seed)]);
        }
        self.queue(&[b"EXEC"]);
        self.send().expect("a server that lives");
        for _ in 0..entries + 2 {
            self.reply().expect("a reply");
        }
    }

    fn get(&mut self, n: u64) -> Option<usize> {
        match self.ask(&[b"GET", &key(n)]) {
            Some(Reply::Bytes(found)) => found.as_deref().map(look),
            other => panic!("a read was answered by {other:?}"),
        }
    }
}
