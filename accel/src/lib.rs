//! How vCPUs run: the TCG engine and qtest.
