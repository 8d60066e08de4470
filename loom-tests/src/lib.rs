//! Models of tollgate's races, in `tests`: see `CONTRIBUTING.md` for how to run them.
