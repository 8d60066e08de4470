//! A guide by task, one page each. The same pages are in the repository's folder `docs`.

macro_rules! pages {
    ($($(#[$attribute:meta])* $page:ident: $file:literal,)*) => {
        $(
            $(#[$attribute])*
            // These win over the definitions at the end of a page, which are for readers of the files.
            #[doc = "[strict]: crate::guide::several_limits#strict-windows"]
            #[doc = "[settle]: crate::guide::several_limits#reserve-and-settle"]
            #[doc = "[keys]: crate::guide::keys"]
            #[doc = "[upstream]: crate::guide::upstream"]
            #[doc = "[swarm]: crate::guide::swarm"]
            #[doc = "[quota]: crate::guide::quota"]
            #[doc = "[http]: crate::guide::http"]
            #[doc = "[hot]: crate::guide::hot_buckets"]
            #[doc = "[tower]: crate::guide::tower"]
            #[doc = "[axum]: crate::guide::axum"]
            #[doc = "[client]: crate::guide::tower_client"]
            #[doc = ""]
            #[doc = include_str!(concat!("../docs/", $file))]
            pub mod $page {}
        )*
    };
}

pages! {
    api_client: "api-client.md",
    server: "server.md",
    tower_client: "tower-client.md",
    http: "http.md",
    tower: "tower.md",
    // Its code is compiled by the package `tests/web`, which has these frameworks.
    #[cfg(not(doctest))]
    axum: "axum.md",
    streams: "streams.md",
    keys: "keys.md",
    several_limits: "several-limits.md",
    upstream: "upstream.md",
    swarm: "swarm.md",
    metrics: "metrics.md",
    quota: "quota.md",
    configuration: "configuration.md",
    testing: "testing.md",
    hot_buckets: "hot-buckets.md",
    migrating: "migrating.md",
}
