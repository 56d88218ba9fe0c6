"""Records of evaluations and benchmarks: the machine, timing, statistics, tables and pages."""
