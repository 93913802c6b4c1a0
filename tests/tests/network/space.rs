//! Network namespaces on one switch, and daemons in them. Everything is addressed alike in each: HTTP on loopback, peers on port 8434.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Process, WITHIN, bin_dir, until, until_within};

/// The namespace of the switch.
const HUB: &str = "hub";
const HTTP: &str = "127.0.0.1:8433";
pub const PEERING_PORT: u16 = 8434;

fn run(words: &[&str]) -> Output {
    let (program, arguments) = words.split_first().unwrap();
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn must(words: &[&str]) -> String {
    let output = run(words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Why tests with namespaces cannot run here; each is named, so that whoever reads the log can change it.
fn refusal() -> Option<String> {
    let missing = |program: &str| Command::new(program).arg("-V").output().is_err();
    if missing("ip") || missing("curl") || missing("python3") {
        return Some("ip (iproute2), curl or python3 is missing".to_owned());
    }
    let name = format!("tidelog-may-{}", std::process::id());
    let made = run(&["ip", "netns", "add", &name]);
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        return Some(format!("no network namespace can be made here (root, CAP_SYS_ADMIN): {said}"));
    }
    let veth =
        run(&["ip", "-n", &name, "link", "add", "name", "may0", "type", "veth", "peer", "name", "may1"]);
    let bridge = run(&["ip", "-n", &name, "link", "add", "name", "may2", "type", "bridge"]);
    must(&["ip", "netns", "del", &name]);
    for (what, made) in [("veth", veth), ("bridge", bridge)] {
        if !made.status.success() {
            let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            return Some(format!("no {what} can be made here (CAP_NET_ADMIN, kernel module): {said}"));
        }
    }
    None
}

/// A switch, and what hangs on it. All of it goes when this does.
pub struct Network {
    bin_dir: PathBuf,
    folder: tempfile::TempDir,
    prefix: String,
    spaces: usize,
}

impl Network {
    /// `None`, and a word why, where there are no namespaces or no binaries.
    pub fn new() -> Option<Self> {
        let bin_dir = bin_dir()?;
        if let Some(reason) = refusal() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let network = Self {
            bin_dir,
            folder: tempfile::tempdir().unwrap(),
            prefix: format!("tidelog-{}", std::process::id()),
            spaces: 0,
        };
        let hub = network.named(HUB);
        must(&["ip", "netns", "add", &hub]);
        must(&["ip", "-n", &hub, "link", "add", "switch", "type", "bridge"]);
        must(&["ip", "-n", &hub, "link", "set", "switch", "up"]);
        network.tidelog(&["ca", "init"]);
        Some(network)
    }

    fn named(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// `tidelog …` in a folder of the network's own.
    pub fn tidelog(&self, words: &[&str]) -> String {
        let mut command = Command::new(self.bin_dir.join("tidelog"));
        let output = command.current_dir(self.folder.path()).args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A namespace with a cable to the switch.
    pub fn space(&mut self) -> Space {
        self.spaces += 1;
        let number = self.spaces;
        let (name, hub, port) = (self.named(&number.to_string()), self.named(HUB), format!("port{number}"));
        let cidr = format!("10.77.0.{number}/24");
        must(&["ip", "netns", "add", &name]);
        must(&[
            "ip", "-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &name,
        ]);
        must(&["ip", "-n", &name, "addr", "add", &cidr, "dev", "eth0"]);
        for (space, device) in [(&name, "lo"), (&name, "eth0"), (&hub, port.as_str())] {
            must(&["ip", "-n", space, "link", "set", device, "up"]);
        }
        let space = Space { name, number, hub, port };
        space.join();
        space
    }

    /// Starts a node of the cluster there, which dials `peers`.
    pub fn start(&self, space: &Space, peers: &[String]) -> Node {
        let name = format!("node-{}", space.number);
        let pem = self.folder.path().join("tidelog-ca").join(format!("{name}.pem"));
        if !pem.exists() {
            self.tidelog(&["ca", "issue", &name, "--all-sites"]);
        }
        let file = |name: &str| self.folder.path().join("tidelog-ca").join(name).display().to_string();
        let data = self.folder.path().join(&name).display().to_string();
        let listen = format!("0.0.0.0:{PEERING_PORT}");
        let mut command = space.command(&self.bin_dir.join("tidelog-cloud").display().to_string());
        command.args(["--data", &data, "--http", HTTP, "--log-level", "warn", "--peering-listen", &listen]);
        command.args(["--peering-cert", &file(&format!("{name}.pem"))]);
        command.args(["--peering-key", &file(&format!("{name}.key")), "--peering-ca", &file("ca.pem")]);
        if !peers.is_empty() {
            command.args(["--peering-peers", &peers.join(",")]);
        }
        Node::started(space, command)
    }

    /// Starts a gateway there that is alone.
    pub fn gateway(&self, space: &Space, words: &[&str]) -> Node {
        let mut command = space.command(&self.bin_dir.join("tidelog-gateway").display().to_string());
        command.arg("--data").arg(self.folder.path().join(format!("gateway-{}", space.number)));
        command.args(["--http", HTTP, "--log-level", "warn"]).args(words);
        Node::started(space, command)
    }

    /// A far, slow and lossy link between two namespaces beside the switch; the addresses of its ends are 10.78.0.1 and 10.78.0.2.
    pub fn link(&self, a: &Space, b: &Space, delay_ms: u32, loss: f64, bits_per_s: u32) -> Option<Link> {
        if !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("skipped: there is no /dev/net/tun (kernel module tun) to make a bad link with");
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/network/link.py");
        let ends = [(&a.name, "far0", "10.78.0.1/24"), (&b.name, "far1", "10.78.0.2/24")];
        let mut command = Command::new("python3");
        command.arg(script);
        for (space, device, cidr) in ends {
            command.args([space.as_str(), &format!("{device}x{}", std::process::id() % 10_000), cidr]);
        }
        command.args([delay_ms.to_string(), loss.to_string(), bits_per_s.to_string(), "1".to_owned()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let commands = child.stdin.take().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready.trim(), "ready", "the link did not come up");
        Some(Link { commands, _process: Process(child) })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let names = (1..=self.spaces).map(|number| number.to_string()).chain([HUB.to_owned()]);
        for name in names {
            run(&["ip", "netns", "del", &self.named(&name)]);
        }
    }
}

/// A namespace.
pub struct Space {
    name: String,
    number: usize,
    hub: String,
    port: String,
}

impl Space {
    /// A program in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Gives its end of the cable one more address, of IPv6.
    pub fn address_add(&self, cidr: &str) {
        must(&["ip", "-n", &self.name, "addr", "add", cidr, "dev", "eth0", "nodad"]);
    }

    /// Where a node in it is dialled over the switch.
    pub fn address(&self) -> String {
        format!("10.77.0.{}:{PEERING_PORT}", self.number)
    }

    /// Takes its port off the switch. Its cable stays in, and nobody is told.
    pub fn cut(&self) {
        must(&["ip", "-n", &self.hub, "link", "set", &self.port, "nomaster"]);
    }

    /// Puts its port on the switch.
    pub fn join(&self) {
        must(&["ip", "-n", &self.hub, "link", "set", &self.port, "master", "switch"]);
    }
}

/// A bad link. It is gone when this is.
pub struct Link {
    commands: ChildStdin,
    _process: Process,
}

impl Link {
    /// Loses this part of what comes from `end`, 'a' or 'b'.
    pub fn lose(&mut self, end: char, part: f64) {
        writeln!(self.commands, "{end} {part}").unwrap();
        self.commands.flush().unwrap();
    }
}

/// A running node.
pub struct Node {
    space: String,
    pub process: Process,
}

impl Node {
    fn started(space: &Space, mut command: Command) -> Self {
        let process = Process(command.stdin(Stdio::null()).spawn().unwrap());
        let mut node = Self { space: space.name.clone(), process };
        until("the node to be ready", || {
            assert!(node.process.runs(), "the node in {} does not run", node.space);
            node.ask("/readyz").filter(|answer| answer.contains("true"))
        });
        node
    }

    fn curl(&self) -> Command {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.space,
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "60",
        ]);
        command
    }

    /// A GET's answer, if there is a good one.
    pub fn ask(&self, path: &str) -> Option<String> {
        let output = self.curl().arg(format!("http://{HTTP}{path}")).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Writes points at these times, each in a record of its own, over one connection.
    pub fn write(&self, times: std::ops::Range<i64>) {
        // Each request of a configuration has options of its own.
        let request = |time: i64| {
            let line = format!("temp,at={} value={time}i {time}", self.space);
            format!(
                "url = \"http://{HTTP}/write?db=plant\"\ndata-binary = \"{line}\"\nsilent\nshow-error\nfail\n"
            )
        };
        let config = times.map(request).collect::<Vec<_>>().join("next\n");
        let mut child: Child = self.curl().args(["-K", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ask("/api/v1/status").unwrap()).unwrap()
    }

    /// What it holds of each stream, as it must be everywhere.
    pub fn streams(&self) -> Vec<(String, u64, String)> {
        let status = self.status();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let each = |stream: &Value| {
            let id = format!("{} {} {}", text(&stream["site"]), text(&stream["node"]), text(&stream["run"]));
            (id, stream["lsn"].as_u64().unwrap(), text(&stream["chain"]))
        };
        status["streams"].as_array().unwrap().iter().map(each).collect()
    }

    /// Records of others that it holds.
    pub fn foreign_records(&self) -> u64 {
        let own = self.status()["node"].as_str().unwrap().to_owned();
        self.streams().iter().filter(|(id, ..)| !id.contains(&own)).map(|(_, lsn, _)| lsn).sum()
    }

    /// All points of the site, as bytes.
    pub fn points(&self) -> String {
        self.ask("/api/v1/sites/plant/points?format=csv").unwrap()
    }

    /// The value of a counter whose line begins so.
    pub fn counted(&self, name: &str) -> u64 {
        let text = self.ask("/metrics").unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |number| number.parse().unwrap())
    }
}

/// Waits until all hold the same records, and so many points; then that they answer the same bytes.
pub fn converge(nodes: &[&Node], points: usize) {
    converge_within(WITHIN, nodes, points);
}

/// The same with another patience.
pub fn converge_within(patience: Duration, nodes: &[&Node], points: usize) {
    until_within(patience, "all to hold the same", || {
        let first = nodes[0].streams();
        let all = nodes.iter().all(|node| node.streams() == first);
        (all && nodes[0].points().lines().count() == points + 1).then_some(())
    });
    let answer = nodes[0].points();
    for node in nodes {
        assert_eq!(node.points(), answer);
    }
}
