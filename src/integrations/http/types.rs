//! What an answer can say.

use std::time::Duration;

/// Whose headers to expect. A provider's profile reads its headers only, so that those that a proxy adds do
/// not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// All that are known; what differs between providers is told by the headers that are there.
    #[default]
    Auto,
    /// All that are known, and no provider's own rules.
    Generic,
    /// The IETF's drafts: `RateLimit` and `RateLimit-Policy`.
    Ietf,
    /// `OpenAI`, and what follows it.
    OpenAi,
    /// Azure.
    Azure,
    /// Anthropic.
    Anthropic,
    /// GitHub. A 403 may be a limit too: see [`Feedback::with_body`](super::Feedback::with_body).
    GitHub,
    /// GitLab.
    GitLab,
    /// Discord.
    Discord,
    /// Shopify, and others that write used and size, as in `32/40`.
    Shopify,
    /// Mistral.
    Mistral,
    /// AWS, which throttles by a code, often under the status 400: see
    /// [`Feedback::with_body`](super::Feedback::with_body).
    Aws,
}

/// How the upstream took the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing says that a limit was exceeded. The request may have failed otherwise.
    Passed,
    /// The client exceeded its limit: 429, or what the provider has in its place.
    Throttled,
    /// The upstream is overloaded, whoever caused it: 503 or 529. Slow down. Its figures are not used.
    Overloaded,
}

/// Whose limit was exceeded, where the upstream says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// The one of this resource.
    Resource,
    /// One of all the client's requests: pause its other resources too.
    Global,
    /// One that other clients share: the wait counts, but it is no reason to cut.
    Shared,
}

/// What a quota counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Requests. Also where a header does not say.
    #[default]
    Requests,
    /// Tokens of a language model, in and out.
    Tokens,
    /// Tokens of the prompt.
    InputTokens,
    /// Tokens of the answer.
    OutputTokens,
    /// Another, which the quota's name tells.
    Other,
}

/// One limit of the upstream, as far as the answer tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// What the upstream calls it, in at most 64 bytes; often empty.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// What it allows, in its unit: in a window, or at once.
    pub limit: Option<u64>,
    /// What is left of it, in its unit.
    pub remaining: Option<u64>,
    /// Time from the answer until the reset, at most [`MAX_WAIT`](super::MAX_WAIT); zero if it has passed.
    pub reset: Option<Duration>,
    /// Whether the reset is the end of a window, or the next token; if not, the quota is full by then.
    pub ends_window: bool,
    /// The length of the window.
    pub window: Option<Duration>,
}
