//! Sites are kept apart, tried as an attacker would: with a good token for one site, every route is asked for another by every way in
//! which a site, or anything that might pass for one, can be named. Routes come from the program, so that none is forgotten.

use tidelog_node::door::{Scope, Token};
use tidelog_node::{ServedRoute, served_routes};

use crate::common::Running;
use crate::common::door::{Raw, bearer, make_token, raw};

/// What stands in the other site's names, labels and texts, and must be seen nowhere.
const SECRET: &str = "zinnober";
/// The other site.
const OTHER: &str = "works-b";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const JSON: &str = "Content-Type: application/json";

struct Plant {
    dir: tempfile::TempDir,
    running: Running,
    token: Token,
}

/// A node whose own site is the other one, so that whatever falls back on it falls into the trap.
fn plant() -> Plant {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(dir.path(), &["--site", OTHER]);
    for (site, name) in [("works-a", "open"), (OTHER, SECRET)] {
        let point = |time: i64| {
            format!(
                r#"{{"metric":"{name}_metric","labels":{{"device":"{name}-device","{name}_label":"{name}-value"}},"timestamp_ns":{time},"value":{time}}}"#
            )
        };
        let text = format!(r#"{{"metric":"{name}_text","timestamp_ns":1,"value":"{name} text"}}"#);
        let body = format!(r#"{{"points":[{},{},{text}]}}"#, point(1_000), point(2_000_000_000));
        assert_eq!(
            raw(&running.url, "POST", &format!("/api/v1/sites/{site}/points"), &[JSON], &body).status,
            200
        );
    }
    let scopes = [Scope::Read, Scope::Write, Scope::Command, Scope::Admin];
    let token = make_token(dir.path(), &scopes, &["works-a"]);
    Plant { dir, running, token }
}

impl Plant {
    fn ask(&self, method: &str, target: &str, heads: &[&str], body: &str) -> Raw {
        let bearer = bearer(&self.token);
        let heads: Vec<&str> = std::iter::once(bearer.as_str()).chain(heads.iter().copied()).collect();
        raw(&self.running.url, method, target, &heads, body)
    }

    /// The other site's name and its content are not in the answer.
    fn sees_nothing(&self, what: &str, answer: &Raw) {
        assert!(!answer.text.contains(SECRET), "{what}: {}", answer.text);
        // A refusal may repeat what was asked for; an answer may not name what it does not show.
        assert!(answer.status >= 400 || !answer.text.contains(OTHER), "{what}: {}", answer.text);
    }

    /// All that the other site holds, by a token that may see it.
    fn held(&self) -> String {
        let all = make_token(self.dir.path(), &[Scope::Read], &[]);
        let target = format!("/api/v1/sites/{OTHER}/points");
        let answer = raw(&self.running.url, "GET", &target, &[&bearer(&all)], "");
        let (_, body) = answer.text.split_once("\r\n\r\n").unwrap();
        assert!(answer.status == 200 && body.contains(SECRET), "{}", answer.text);
        // The document; whether it came as a whole or in pieces is another thing.
        body[body.find('{').unwrap()..=body.rfind('}').unwrap()].to_owned()
    }
}

/// Questions that fit some route or other; each is asked of all.
const QUERIES: [&str; 12] = [
    "",
    "match={__name__=~\".+\"}",
    "match={__name__!=\"\"}&start=0&end=9&step=1&fn=count,last",
    "fn=count&by=",
    "match[]={__name__=~\".*\"}",
    "query={__name__=~\".%2B\"}&time=1",
    "query=count({__name__=~\".%2B\"})&start=0&end=2&step=1",
    "query={site=\"works-b\"}&time=2",
    "query={__name__=~\".%2B\",site=~\".*\"}[1h]&time=2",
    "query=zinnob\\x65r_metric&time=2",
    "query=label_replace({__name__=~\".%2B\"},\"a\",\"$1\",\"device\",\"(.*)\")&time=2",
    "query=sum({__name__=~\".%2B\"} offset 0s)&time=2",
];

/// Ways to name the other site that are not its path.
const NAMINGS: [(&str, &str); 6] = [
    ("", ""),
    ("site=works-b", ""),
    ("site=works-a&site=works-b", ""),
    ("", "X-Tidelog-Site: works-b"),
    ("bucket=works-b&db=works-b", ""),
    ("site=works-b", "X-Tidelog-Site: works-a"),
];

/// Ways to write the other site into a path.
const PATHS: [&str; 12] = [
    "works-b",
    "works%2Db",
    "%77orks-b",
    "works-a/../works-b",
    "works-a%2F..%2Fworks-b",
    "works-a%2f..%2fworks-b",
    "works-a/%2e%2e/works-b",
    "..%2Fsites%2Fworks-b",
    "works-a;works-b",
    "works-a%00works-b",
    "WORKS-B",
    "*",
];

fn encoded(query: &str) -> String {
    query.replace(' ', "%20").replace('"', "%22").replace('{', "%7B").replace('}', "%7D").replace('\\', "%5C")
}

/// The parts between `&` that are not empty.
fn joined(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("&")
}

/// What makes an answer end that otherwise has none, and tell all that there is.
fn ending(path: &str) -> &'static str {
    if path == "/api/v1/tail" { "after=start&follow=false" } else { "" }
}

fn attack(plant: &Plant, route: &ServedRoute, path: &str) {
    for query in QUERIES.map(encoded) {
        for (naming, head) in NAMINGS {
            let heads: Vec<&str> = [head].into_iter().filter(|head| !head.is_empty()).collect();
            let both = joined(&[naming, &query, ending(path)]);
            let what = format!("{} {path} ? {both} + {head}", route.method);
            let in_url = plant.ask(&route.method, &format!("{path}?{both}"), &heads, "");
            plant.sees_nothing(&what, &in_url);
            if route.method == "POST" {
                let heads = [&heads[..], &[FORM]].concat();
                plant.sees_nothing(&what, &plant.ask("POST", path, &heads, &both));
            }
        }
    }
}

#[test]
fn a_token_for_one_site_sees_nothing_of_another_by_any_route_and_any_way_of_asking() {
    let plant = plant();
    let before = plant.held();
    for route in served_routes() {
        let path = route.path.replace("{name}", "device").replace("{device}", "open-device");
        if !path.contains("{site}") {
            attack(&plant, &route, &path);
            continue;
        }
        // By its path the site is named directly; anything else in the request must not turn it.
        attack(&plant, &route, &path.replace("{site}", "works-a"));
        for name in PATHS {
            let target = path.replace("{site}", name);
            let answer = plant.ask(&route.method, &target, &[JSON], "");
            let what = format!("{} {target}", route.method);
            plant.sees_nothing(&what, &answer);
            assert!(answer.status >= 400, "{what}: {}", answer.text);
        }
    }
    assert_eq!(plant.held(), before);
    plant.running.stop();
}

#[test]
fn a_token_for_one_site_writes_nothing_into_another_by_any_route() {
    let plant = plant();
    let before = plant.held();
    let (line, point, labels) = (
        "intruder value=1 5",
        r#"{"points":[{"metric":"intruder","timestamp_ns":5,"value":1}]}"#,
        r#"{"labels":{"location":"intruder"}}"#,
    );
    for route in served_routes().iter().filter(|route| route.method != "GET") {
        let mut targets = vec![route.path.clone()];
        if route.path.contains("{site}") {
            let path = route.path.replace("{device}", "intruder");
            targets = PATHS.iter().map(|name| path.replace("{site}", name)).collect();
        }
        for target in targets {
            for query in [
                "",
                "bucket=works-b",
                "db=works-b",
                "bucket=works-b%2Fautogen",
                "db=works-b/x",
                "site=works-b",
                "org=works-b",
            ] {
                for (head, body) in
                    [(FORM, line), (JSON, point), (JSON, labels), ("X-Tidelog-Site: works-b", line)]
                {
                    let answer = plant.ask(&route.method, &format!("{target}?{query}"), &[head], body);
                    let what = format!("{target}?{query} {head}");
                    assert!(answer.status >= 400, "{what}: {}", answer.text);
                    plant.sees_nothing(&what, &answer);
                }
            }
        }
    }
    assert_eq!(plant.held(), before);
    plant.running.stop();
}

#[test]
fn the_same_token_sees_its_own_site_so_that_the_attacks_would_have_shown_something() {
    let plant = plant();
    let shown = [
        "/api/v1/sites",
        "/api/v1/status",
        "/api/v1/sites/works-a/points",
        "/api/v1/sites/works-a/last",
        "/api/v1/sites/works-a/devices",
        "/api/v1/sites/works-a/devices/open-device",
        "/api/v1/sites/works-a/aggregate?fn=count",
        "/api/v1/labels?site=works-a",
        "/api/v1/query?site=works-a&query=open_metric&time=2",
        "/prometheus/works-a/api/v1/label/device/values",
    ];
    for target in shown {
        let answer = plant.ask("GET", target, &[], "");
        assert!(
            answer.status == 200 && (answer.text.contains("open") || answer.text.contains("works-a")),
            "{target}: {}",
            answer.text
        );
    }
    let all = make_token(plant.dir.path(), &[Scope::Read], &[]);
    for target in ["/api/v1/query?query=zinnober_metric&time=2", "/api/v1/status", "/api/v1/sites"] {
        let answer = raw(&plant.running.url, "GET", target, &[&bearer(&all)], "");
        assert!(answer.text.contains(SECRET) || answer.text.contains(OTHER), "{target}: {}", answer.text);
    }
    plant.running.stop();
}
