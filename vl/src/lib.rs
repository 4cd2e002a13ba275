//! Options, start-up, run state, main loop, monitors.
