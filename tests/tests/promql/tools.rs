//! `promtool query` against both servers: its output is the same.

use std::process::Command;

const QUERIES: [&[&str]; 9] = [
    &["instant", "URL", "sort(temperature)", "--time=1767229200"],
    &["instant", "URL", "sum by (job) (rate(http_requests_total[5m]))", "--time=1767229200"],
    &["instant", "URL", "temperature{", "--time=1767229200"],
    &["range", "URL", "temperature{room=\"lab\"}", "--start=1767229200", "--end=1767229500", "--step=1m"],
    &["range", "URL", "1 +", "--start=1767229200", "--end=1767229500", "--step=1m"],
    &["series", "URL", "--match=temperature", "--match=humidity", "--start=1767225600", "--end=1767232800"],
    &["labels", "URL", "room", "--start=1767225600", "--end=1767232800"],
    &["labels", "URL", "__name__", "--start=1767225600", "--end=1767232800"],
    &["labels", "URL", "nosuch", "--start=1767225600", "--end=1767232800"],
];

pub fn promtool(theirs: &str, ours: &str) {
    for words in QUERIES {
        let [theirs, ours] = [theirs, ours].map(|url| said(url, words));
        if theirs.0 {
            // A selector's series have no order of their own.
            assert_eq!(sorted(&ours.1), sorted(&theirs.1), "{words:?}");
        }
        assert_eq!(ours.0, theirs.0, "{words:?}: {} {}", ours.1, theirs.1);
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// Whether it went well, and its output.
fn said(url: &str, words: &[&str]) -> (bool, String) {
    let words = words.iter().map(|word| if *word == "URL" { url } else { word });
    let output = Command::new("promtool").arg("query").args(words).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}
