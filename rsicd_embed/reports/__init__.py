"""Records of evaluations and benchmarks: types, machine, timing, statistics, plots and pages."""
