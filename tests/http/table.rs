//! Each row of `headers.tsv` is read as it says.

use std::fmt::Write;

use http::StatusCode;
use tollgate::http::{Feedback, Profile, Scope, Unit};

use crate::headers;

const TABLE: &str = include_str!("headers.tsv");

fn profile(name: &str) -> Profile {
    match name {
        "auto" => Profile::Auto,
        "generic" => Profile::Generic,
        "ietf" => Profile::Ietf,
        "openai" => Profile::OpenAi,
        "azure" => Profile::Azure,
        "anthropic" => Profile::Anthropic,
        "github" => Profile::GitHub,
        "gitlab" => Profile::GitLab,
        "discord" => Profile::Discord,
        "shopify" => Profile::Shopify,
        "mistral" => Profile::Mistral,
        "aws" => Profile::Aws,
        other => panic!("no profile: {other}"),
    }
}

/// `throttled, pause 1s, tokens 5/10 full 2s per 60s`: an outcome, a pause and each quota.
fn show(feedback: &Feedback) -> String {
    let mut text = format!("{:?}", feedback.outcome).to_lowercase();
    if let Some(wait) = feedback.retry_after {
        write!(text, ", pause {wait:?}").unwrap();
    }
    if feedback.scope != Scope::Resource {
        write!(text, ", {:?}", feedback.scope).unwrap();
    }
    for quota in &feedback.quotas {
        let number = |n: Option<u64>| n.map_or_else(|| "?".to_string(), |n| n.to_string());
        let (left, limit) = (number(quota.remaining), number(quota.limit));
        write!(text, ", ").unwrap();
        if !quota.name.is_empty() {
            write!(text, "{} ", quota.name).unwrap();
        }
        write!(text, "{left}/{limit}").unwrap();
        if quota.unit != Unit::Requests {
            write!(text, " {:?}", quota.unit).unwrap();
        }
        if let Some(reset) = quota.reset {
            let what = if quota.ends_window { "ends" } else { "full" };
            write!(text, " {what} {reset:?}").unwrap();
        }
        if let Some(window) = quota.window {
            write!(text, " per {window:?}").unwrap();
        }
    }
    if let Some(bucket) = &feedback.bucket {
        write!(text, ", bucket {bucket}").unwrap();
    }
    if let Some(cost) = feedback.cost {
        write!(text, ", cost {cost}").unwrap();
    }
    text
}

#[test]
fn every_row_is_read_as_it_says() {
    let mut wrong = Vec::new();
    let mut rows = 0;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<_> = line.split('\t').collect();
        let [name, status, fields, date, expected, meaning, _] = columns[..] else {
            panic!("not seven columns: {line}");
        };
        let (bodies, fields): (Vec<_>, Vec<_>) = fields
            .split(" | ")
            .filter(|field| !field.is_empty())
            .partition(|field| field.starts_with("body: "));
        let mut fields = headers(fields);
        if date != "-" {
            fields.insert("date", date.parse().unwrap());
        }
        let status: StatusCode = status.trim_start_matches('~').parse().unwrap();
        let mut feedback = Feedback::new(profile(name), status, &fields);
        for body in bodies {
            feedback = feedback.with_body(body.trim_start_matches("body: ").as_bytes());
        }
        rows += 1;
        let shown = show(&feedback);
        if shown != expected {
            wrong.push(format!(
                "{name} {status} {fields:?}\n  ({meaning})\n  {expected}\n  {shown}"
            ));
        }
    }
    assert!(rows >= 39, "{rows} rows");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
