//! What certificates say, for people and for programs. Whether anyone believes them is not known here.

use serde_json::{Value, json};
use tidelog_node::peering::certificate::{Certificate, Holder};
use tidelog_replication::Sites;

use crate::words::{instant, printable, table};

/// For people: each certificate a paragraph.
pub fn in_words(certificates: &[Certificate], now_s: i64) -> String {
    certificates.iter().map(|each| paragraph(each, now_s)).collect::<Vec<_>>().join("\n")
}

fn paragraph(certificate: &Certificate, now_s: i64) -> String {
    let name = printable(&certificate.name);
    let mut lines = match &certificate.holder {
        Holder::Authority => vec![("authority", name), ("key id", certificate.key_id.to_string())],
        Holder::Node(sites) => vec![
            ("node", certificate.key_id.to_string()),
            ("name", name),
            (
                "sites",
                match sites {
                    Sites::All => "all".to_owned(),
                    Sites::Only(_) => names(sites).join(", "),
                },
            ),
        ],
        Holder::Other(reason) => vec![("no node", reason.to_string()), ("name", name)],
    };
    if certificate.cloud {
        lines.push(("role", "cloud".to_owned()));
    }
    let (from, until) = (instant(certificate.valid_from_s), instant(certificate.valid_until_s));
    let now = match validity(certificate, now_s) {
        Validity::Now => "",
        Validity::NotYet => ": NOT YET VALID",
        Validity::Ended => ": EXPIRED",
    };
    lines.push(("valid", format!("from {from} until {until}{now}")));
    lines.push(("issuer", printable(&certificate.issuer)));
    lines.push(("serial", certificate.serial.clone()));
    let rows: Vec<_> = lines.into_iter().map(|(what, text)| vec![what.to_owned(), text]).collect();
    table(&rows)
}

/// For programs: `{"certificates": […]}` in the file's order.
pub fn as_json(certificates: &[Certificate], now_s: i64) -> Value {
    let each = |certificate: &Certificate| {
        let (kind, sites, reason) = match &certificate.holder {
            Holder::Authority => ("authority", vec![], None),
            Holder::Node(sites) => ("node", names(sites), None),
            Holder::Other(reason) => ("other", vec![], Some(reason.to_string())),
        };
        let mut shown = json!({
            "kind": kind,
            "key_id": certificate.key_id.to_string(),
            "name": certificate.name,
            "valid_from": instant(certificate.valid_from_s),
            "valid_until": instant(certificate.valid_until_s),
            "valid_now": validity(certificate, now_s) == Validity::Now,
            "issuer": certificate.issuer,
            "serial": certificate.serial,
        });
        if kind == "node" {
            shown["node"] = certificate.key_id.to_string().into();
            shown["sites"] = sites.into();
            shown["cloud"] = certificate.cloud.into();
        }
        if let Some(reason) = reason {
            shown["reason"] = reason.into();
        }
        shown
    };
    json!({ "certificates": certificates.iter().map(each).collect::<Vec<_>>() })
}

#[derive(PartialEq, Eq)]
enum Validity {
    NotYet,
    Now,
    Ended,
}

fn validity(certificate: &Certificate, now_s: i64) -> Validity {
    match now_s {
        now if now < certificate.valid_from_s => Validity::NotYet,
        now if now > certificate.valid_until_s => Validity::Ended,
        _ => Validity::Now,
    }
}

/// The sites as a certificate names them: `*` is all.
fn names(sites: &Sites) -> Vec<String> {
    match sites {
        Sites::All => vec!["*".to_owned()],
        Sites::Only(sites) => sites.iter().map(ToString::to_string).collect(),
    }
}
