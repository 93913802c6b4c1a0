//! `GET /api/v1/openapi.json`: the API for programs, as OpenAPI 3.1 has it, made of the table of routes: a route cannot be served without
//! an [`Operation`] that says what it is. What is said of each stands in [`operations`], the shapes of documents in [`schemas`].

pub(super) mod operations;
mod schemas;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::Api;
use super::guard::{Manner, Need};
use super::line::Dialect;
use super::routes::{Route, routes};

/// What a route is, for whoever wants to use it.
#[derive(Debug)]
pub(super) struct Operation {
    /// Its name for programs, the same at every place where its path stands.
    pub id: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// What may stand in its query.
    pub query: &'static [Parameter],
    /// The bodies it takes: content type, and the name of the schema.
    pub takes: &'static [(&'static str, &'static str)],
    /// What may stand in its heads.
    pub heads: &'static [Parameter],
    /// How it answers when it does as it was asked.
    pub answers: &'static [Answer],
}

/// One of the answers.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub about: &'static str,
    /// Content type, and the name of the schema.
    pub forms: &'static [(&'static str, &'static str)],
}

/// Something that is named and has a value.
#[derive(Debug)]
pub(super) struct Parameter {
    pub name: &'static str,
    pub about: &'static str,
    pub is_needed: bool,
    pub kind: Kind,
}

/// What a parameter's value is.
#[derive(Debug)]
pub(super) enum Kind {
    Text,
    /// May stand more than once.
    Texts,
    Count,
    Bool,
    OneOf(&'static [&'static str]),
}

impl Kind {
    fn schema(&self) -> Value {
        match self {
            Self::Text => json!({"type": "string"}),
            Self::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Self::Count => json!({"type": "integer", "minimum": 0}),
            Self::Bool => json!({"type": "boolean"}),
            Self::OneOf(words) => json!({"type": "string", "enum": words}),
        }
    }
}

/// The variable parts of paths.
const IN_PATHS: [(&str, &str, &str); 3] = [
    ("site", "The name of a site", "^[a-z0-9][a-z0-9._-]{0,63}$"),
    ("device", "The value of the label device", "^.{1,256}$"),
    ("name", "The name of a label", "^[A-Za-z_][A-Za-z0-9_]*$"),
];

/// Where the API of Prometheus stands a second time.
const SECOND_PLACE: &str = "/prometheus/{site}";

pub(super) async fn get_openapi(State(api): State<Api>) -> Json<Value> {
    Json(document(api.version))
}

/// The whole document, as a program of this version serves it.
#[must_use]
pub fn document(version: &str) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes() {
        let operation = operation(&route);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tidelog",
            "version": version,
            "summary": "The HTTP API of a node, gateway or cloud. docs/HTTP.md is the manual.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A token of the node"},
                "basic": {"type": "http", "scheme": "basic", "description": "Any user, the token as password"},
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let says = route.says;
    let (id, summary) = if route.path.starts_with(SECOND_PLACE) {
        (format!("{}OfSite", says.id), format!("{} Of the site in the path.", says.summary))
    } else {
        (says.id.to_owned(), says.summary.to_owned())
    };
    let is_form =
        route.method == "POST" && matches!(route.manner, Manner::Prometheus) && says.takes.is_empty();
    let id = if is_form { format!("{id}ByForm") } else { id };
    let mut operation = json!({"operationId": id, "summary": summary, "responses": responses(route)});
    let mut parameters: Vec<Value> = IN_PATHS
        .iter()
        .filter(|(name, ..)| route.path.contains(&format!("{{{name}}}")))
        .map(|(name, about, pattern)| {
            let schema = json!({"type": "string", "pattern": pattern});
            json!({"name": name, "in": "path", "required": true, "description": about, "schema": schema})
        })
        .collect();
    if is_form {
        operation["requestBody"] = form(says.query);
    } else {
        parameters.extend(says.query.iter().map(|parameter| parameter_in(parameter, "query")));
    }
    parameters.extend(says.heads.iter().map(|parameter| parameter_in(parameter, "header")));
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if !says.takes.is_empty() {
        operation["requestBody"] = json!({"required": true, "content": content(says.takes)});
    }
    if let Need::Token(scope) = route.need {
        // Without tokens every door is open.
        operation["security"] = json!([{}, {"bearer": [scope.name()]}, {"basic": [scope.name()]}]);
    }
    operation
}

fn parameter_in(parameter: &Parameter, place: &str) -> Value {
    let Parameter { name, about, is_needed, kind } = parameter;
    json!({"name": name, "in": place, "required": is_needed, "description": about, "schema": kind.schema()})
}

/// The parameters as the body of a form.
fn form(parameters: &[Parameter]) -> Value {
    let properties: Map<String, Value> = parameters
        .iter()
        .map(|parameter| {
            let mut schema = parameter.kind.schema();
            schema["description"] = json!(parameter.about);
            (parameter.name.to_owned(), schema)
        })
        .collect();
    let needed: Vec<&str> = parameters.iter().filter(|p| p.is_needed).map(|p| p.name).collect();
    let schema = json!({"type": "object", "properties": properties, "required": needed});
    json!({"content": {"application/x-www-form-urlencoded": {"schema": schema}}})
}

fn content(forms: &[(&str, &str)]) -> Value {
    forms
        .iter()
        .map(|(kind, schema)| ((*kind).to_owned(), json!({"schema": reference(schema)})))
        .collect::<Map<_, _>>()
        .into()
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn responses(route: &Route) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for Answer { status, about, forms } in route.says.answers {
        let mut answer = json!({"description": about});
        if !forms.is_empty() {
            answer["content"] = content(forms);
        }
        all.insert(status.to_string(), answer);
    }
    let error = match route.manner {
        Manner::Own => "Error",
        Manner::Influx(Dialect::V1) => "InfluxError1",
        Manner::Influx(Dialect::V2) => "InfluxError2",
        Manner::Prometheus => "PrometheusError",
    };
    let refusal =
        |about: &str| json!({"description": about, "content": content(&[("application/json", error)])});
    if route.need != Need::Nothing {
        all.insert("401".to_owned(), refusal("There is no token, or none that is known"));
        all.insert("403".to_owned(), refusal("The token does not grant it"));
        all.insert("default".to_owned(), refusal("A refusal; the manual says what each code means"));
    }
    all.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| match (name.as_str(), value) {
                ("$ref", Value::String(target)) => {
                    found.insert(target.strip_prefix("#/components/schemas/").unwrap().to_owned());
                }
                _ => references(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_shape_that_is_named_is_there_and_every_one_that_is_there_is_named() {
        let document = document("1");
        let mut named = BTreeSet::new();
        references(&document, &mut named);
        let there: BTreeSet<String> =
            document["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(named, there);
    }

    #[test]
    fn every_route_is_in_it_under_a_name_of_its_own_with_the_variable_parts_of_its_path() {
        let (document, mut ids) = (document("1"), BTreeSet::new());
        for route in routes() {
            let method = route.method.as_str().to_ascii_lowercase();
            let operation = &document["paths"][&route.path][&method];
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} stands twice");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let in_path: Vec<&str> = parameters
                .iter()
                .filter(|p| p["in"] == "path")
                .map(|p| p["name"].as_str().unwrap())
                .collect();
            let expected: Vec<&str> = route.path.split(['{', '}']).skip(1).step_by(2).collect();
            assert_eq!(in_path, expected, "{}", route.path);
            assert!(operation["summary"].as_str().unwrap().ends_with('.'), "{id}");
            assert_eq!(operation["security"].is_array(), route.need != Need::Nothing, "{id}");
        }
        let methods = document["paths"].as_object().unwrap().values().map(|p| p.as_object().unwrap().len());
        assert_eq!(methods.sum::<usize>(), routes().len());
    }
}
