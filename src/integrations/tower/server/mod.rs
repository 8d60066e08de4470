//! A layer that limits the requests a server accepts.
