//! Fields of an answer that could not be read, counted for metrics.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::fields;
use super::names::{Family, Figure, Name};
use super::types::Profile;
use super::values;
use crate::integrations::metrics::count_ignored_fields;

type Parse = fn(&str, Duration) -> Option<Duration>;

/// Counts those among the fields that `profile` reads. `waits` are those of the times to wait.
pub(super) fn count(
    profile: Profile,
    headers: &HeaderMap,
    date: Duration,
    waits: &[(&str, Parse)],
) {
    let is_ignored = |(name, value): &(&http::HeaderName, &HeaderValue)| {
        let Some(text) = std::str::from_utf8(value.as_bytes()).ok().map(str::trim) else {
            return Name::parse(name.as_str()).is_some();
        };
        if let Some((_, parse)) = waits.iter().find(|(wait, _)| name == wait) {
            return parse(text, date).is_none();
        }
        if Family::Draft.is_in(profile)
            && ["ratelimit", "ratelimit-policy"].contains(&name.as_str())
        {
            return fields::line(value).is_empty();
        }
        Name::parse(name.as_str()).is_some_and(|name| {
            name.family.is_in(profile) && is_malformed(name.figure, text, value, date)
        })
    };
    let ignored = headers.iter().filter(is_ignored).count();
    if ignored > 0 {
        count_ignored_fields(name(profile), ignored as u64);
    }
}

fn is_malformed(figure: Figure, text: &str, value: &HeaderValue, date: Duration) -> bool {
    let is_count = |text: &str| values::count(text).is_some();
    match figure {
        Figure::Limit => {
            !is_count(text) && fields::line(value).iter().all(|member| member.number.is_none())
        }
        Figure::Remaining | Figure::Cost => !is_count(text),
        Figure::Reset => values::delay(text, date).is_none(),
        Figure::ResetAfter => values::seconds(text).is_none(),
        Figure::Calls => {
            text.split_once('/').is_none_or(|(used, size)| !is_count(used) || !is_count(size))
        }
        Figure::Bucket | Figure::Global | Figure::Scope => false,
    }
}

fn name(profile: Profile) -> &'static str {
    match profile {
        Profile::Auto => "auto",
        Profile::Generic => "generic",
        Profile::Ietf => "ietf",
        Profile::OpenAi => "openai",
        Profile::Azure => "azure",
        Profile::Anthropic => "anthropic",
        Profile::GitHub => "github",
        Profile::GitLab => "gitlab",
        Profile::Discord => "discord",
        Profile::Shopify => "shopify",
        Profile::Mistral => "mistral",
        Profile::Aws => "aws",
    }
}
