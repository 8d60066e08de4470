//! A layer that keeps a client within the limits of its upstream.
