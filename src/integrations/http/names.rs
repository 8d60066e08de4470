//! What a header's name says: whose it is, which figure, and of what.

use std::time::Duration;

use super::types::{Profile, Unit};

/// Who writes headers of such names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `RateLimit`, `RateLimit-*`: the drafts of the IETF.
    Draft,
    /// `X-RateLimit-*`, `X-Rate-Limit-*`.
    Legacy,
    /// `anthropic-ratelimit-*`.
    Anthropic,
    /// `*-api-call-limit`.
    Calls,
}

impl Family {
    /// Whether a profile reads it.
    pub(super) fn is_in(self, profile: Profile) -> bool {
        let family = match profile {
            Profile::Auto | Profile::Generic => return true,
            Profile::Aws => return false,
            Profile::Ietf | Profile::GitLab => Family::Draft,
            Profile::Anthropic => Family::Anthropic,
            Profile::Shopify => Family::Calls,
            Profile::OpenAi
            | Profile::Azure
            | Profile::GitHub
            | Profile::Discord
            | Profile::Mistral => Family::Legacy,
        };
        self == family
    }
}

/// Which figure a header holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Limit,
    Remaining,
    Reset,
    /// A reset in seconds, which wins over a time.
    ResetAfter,
    Cost,
    Bucket,
    Global,
    Scope,
    /// Used and size, with a slash between.
    Calls,
}

/// A name, taken apart.
#[derive(Debug)]
pub(super) struct Name<'a> {
    pub(super) family: Family,
    pub(super) figure: Figure,
    /// What is counted: `tokens`, `requests-minute`; empty where it does not say.
    pub(super) dimension: &'a str,
}

const FAMILIES: [(&str, Family); 4] = [
    ("x-ratelimit-", Family::Legacy),
    ("x-rate-limit-", Family::Legacy),
    ("anthropic-ratelimit-", Family::Anthropic),
    ("ratelimit-", Family::Draft),
];

const FIGURES: [(&str, Figure); 3] =
    [("limit", Figure::Limit), ("remaining", Figure::Remaining), ("reset", Figure::Reset)];

impl<'a> Name<'a> {
    /// `None` for a header that is of no use here. The name is in lower case.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let whole = |family, figure| Some(Self { family, figure, dimension: "" });
        if name.ends_with("-api-call-limit") {
            return whole(Family::Calls, Figure::Calls);
        }
        let (prefix, family) = FAMILIES.into_iter().find(|(prefix, _)| name.starts_with(prefix))?;
        let rest = &name[prefix.len()..];
        match rest {
            "reset-after" => return whole(family, Figure::ResetAfter),
            "next" => return whole(family, Figure::Reset),
            "bucket" | "resource" => return whole(family, Figure::Bucket),
            "global" => return whole(family, Figure::Global),
            "scope" => return whole(family, Figure::Scope),
            _ => {}
        }
        if rest.ends_with("-query-cost") {
            return whole(family, Figure::Cost);
        }
        // `tokens-limit` and `limit-tokens-minute`.
        let of = |figure: &str| match (rest.strip_suffix(figure), rest.strip_prefix(figure)) {
            (Some(""), _) => Some(""),
            (Some(before), _) => before.strip_suffix('-'),
            (None, after) => after?.strip_prefix('-'),
        };
        FIGURES
            .into_iter()
            .find_map(|(word, figure)| of(word).map(|dimension| Self { family, figure, dimension }))
    }
}

/// What a dimension counts, and in which window, if it says so.
pub(super) fn dimension(name: &str) -> (Unit, Option<Duration>) {
    let (counted, last) = name.rsplit_once('-').unwrap_or(("", name));
    let seconds = match last {
        "second" => Some(1),
        "minute" => Some(60),
        "hour" => Some(3_600),
        "day" => Some(24 * 3_600),
        _ => None,
    };
    let unit = match if seconds.is_some() { counted } else { name } {
        "" | "req" | "request" | "requests" => Unit::Requests,
        "tokens" => Unit::Tokens,
        "input-tokens" => Unit::InputTokens,
        "output-tokens" => Unit::OutputTokens,
        _ => Unit::Other,
    };
    (unit, seconds.map(Duration::from_secs))
}
