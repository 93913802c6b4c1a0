//! Sparkplug B from another's hand: an edge node by the `pysparkplug` of PyPI, over a real mosquitto, is taken in by a cloud node, also by one
//! that was not there at its birth and asks for it. Needs the released binaries in `TIDELOG_BIN_DIR`, and in `TIDELOG_PYSPARKPLUG` a Python that has the package.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use support::operator::{Node, Operator};
use support::{Process, bin_dir, until};

const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// Is born when a line comes, and publishes twenty readings with each further one, ten of the node and ten of its device.
const EDGE_NODE: &str = r#"
import itertools
import sys
import threading
import time
import pysparkplug as psp

port = int(sys.argv[1])
stamps = itertools.count(psp.get_current_timestamp())
asked = threading.Event()

def metric(name, datatype, value):
    return psp.Metric(timestamp=next(stamps), name=name, datatype=datatype, value=value)

def connect(word):
    edge.connect("127.0.0.1", port=port)
    while not edge._connected:
        time.sleep(0.01)
    # Its births go out on another thread.
    time.sleep(0.5)
    print(word, flush=True)

def born_again(edge, message):
    if any(metric.name == "Node Control/Rebirth" for metric in message.payload.metrics):
        asked.set()

load = ("Load/5 min", psp.DataType.DOUBLE)
temperature, count = ("Line 1/Temperature", psp.DataType.FLOAT), ("Count", psp.DataType.INT32)
edge = psp.EdgeNode(group_id="works", edge_node_id="press", metrics=(metric(*load, 0.5),), cmd_callback=born_again)
edge.register(psp.Device(device_id="plc", metrics=(metric(*temperature, 21.5), metric(*count, -1))))
connect("born")

def reconnect():
    asked.wait()
    edge.disconnect()
    connect("reborn")

threading.Thread(target=reconnect, daemon=True).start()
for line in sys.stdin:
    for n in range(10):
        edge.update((metric(*load, n / 4),))
        edge.update_device("plc", (metric(*temperature, 20 + n / 2), metric(*count, -n)))
    print("said", flush=True)
edge.disconnect()
"#;

/// The edge node's process, and what it says.
struct Edge(Child, std::io::Lines<std::io::BufReader<std::process::ChildStdout>>);

impl Edge {
    fn start(python: &str, port: u16) -> Self {
        use std::io::BufRead as _;
        let mut command = Command::new(python);
        command.args(["-c", EDGE_NODE, &port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        let mut edge = Self(child, said);
        assert_eq!(edge.next(), "born");
        edge
    }

    fn next(&mut self) -> String {
        self.1.next().unwrap().unwrap()
    }

    fn publish(&mut self) {
        writeln!(self.0.stdin.as_mut().unwrap()).unwrap();
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn lines<'t>(points: &'t str, metric: &str) -> Vec<&'t str> {
    let name = format!("\"metric\":\"{metric}\"");
    points.lines().filter(|line| line.contains(&name)).collect()
}

#[test]
fn an_edge_node_and_its_device_are_taken_in_and_asked_for_the_births_that_were_missed() {
    let Some(bin_dir) = bin_dir() else { return };
    let Some(python) = std::env::var("TIDELOG_PYSPARKPLUG").ok() else {
        eprintln!(
            "skipped: TIDELOG_PYSPARKPLUG names no Python with pysparkplug (tests/run end-to-end does)"
        );
        return;
    };
    let port = tidelog_sim::ports::free_port().unwrap().port();
    let broker = Command::new(MOSQUITTO).args(["-p", &port.to_string()]).stderr(Stdio::null()).spawn();
    let _broker = Process(broker.expect("Debian's package mosquitto"));
    until("the broker", || TcpStream::connect(("127.0.0.1", port)).ok());

    let operator = Operator::new(bin_dir);
    operator.said(&["ca", "init"]);
    let mut flags = operator.issue(&["cloud", "--all-sites"]);
    let own =
        ["--site", "plant", "--ingest-sparkplug", "ask", "--ingest-url", &format!("mqtt://127.0.0.1:{port}")];
    flags.extend(own.map(str::to_owned));
    let start = || {
        let node = operator.start("cloud", &flags, None);
        until("a session", || (node.status()["ingest"]["connected"] == true).then_some(()));
        node
    };
    let cloud = start();
    let mut edge = Edge::start(&python, port);
    edge.publish();
    assert_eq!(edge.next(), "said");
    let held = |node: &Node, metric: &str, count: usize| {
        until(metric, || Some(node.points("plant")).filter(|points| lines(points, metric).len() >= count))
    };
    // The birth's value, and ten more.
    let points = held(&cloud, "line_1_temperature", 11);
    let labels = r#""labels":{"device":"plc","edge":"press","group":"works","name":"Line 1/Temperature"}"#;
    assert!(lines(&points, "line_1_temperature").iter().all(|line| line.contains(labels)), "{points}");
    assert!(points.contains(r#""value":24.5"#), "{points}");
    let counts = held(&cloud, "count", 11);
    assert!(lines(&counts, "count").iter().any(|line| line.ends_with(r#""value":-9}"#)), "{counts}");
    held(&cloud, "load_5_min", 11);
    cloud.end();

    // Nobody hears what is said now; and who comes later does not know what it means.
    let cloud = start();
    edge.publish();
    let said = [edge.next(), edge.next()];
    assert!(said.contains(&"said".to_owned()) && said.contains(&"reborn".to_owned()), "{said:?}");
    edge.publish();
    assert_eq!(edge.next(), "said");
    held(&cloud, "line_1_temperature", 11 + 11);
    let url = format!("{}/metrics", cloud.url());
    let metrics = ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap();
    assert!(metrics.contains(r#"tidelog_ingest_refused_total{reason="birth",via="mqtt"}"#), "{metrics}");
    cloud.end();
}
