//! The heavy operations of the networks, each behind one plain function.
