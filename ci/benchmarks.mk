# Figures, and runs that take long. SOAK="--seconds 150" and BENCH="--rounds 8" are options for them.
SOAK ?=
BENCH ?=

.PHONY: bench bench-isolation bench-memory bench-report bench-observation bench-image soak faults

bench: $(STAMP)  ## Start-up, memory and throughput against a bare server, in one run
	@$(BIN)/python -m benchmarks

# One process, one for each call, one for eight: CPU of a call, first line, memory, start, each beside its goal.
# Six minutes; BENCH="--parts cpu --bots echo --calls 8" measures a part.
bench-isolation: $(STAMP)
	@$(BIN)/python -m benchmarks.isolation $(BENCH)

# What a pod holds on to over twenty calls of a bot with Silero, with and without its release.
bench-memory: $(STAMP)
	@$(BIN)/python -m benchmarks.memory

# These and make bench into benchmarks/README.md, with plots: 20 minutes of a quiet machine.
bench-report: $(STAMP)
	@$(BIN)/python -m benchmarks.report $(BENCH)

# What metrics, reports and events cost at 80 calls.
bench-observation: $(STAMP)
	@$(BIN)/python -m benchmarks.observation

# The image under the smallest profile, against its files without a container; as root.
bench-image: $(STAMP)
	@DOCKER=$(DOCKER) $(BIN)/python -m benchmarks.image

# Thousands of short calls over every transport, in both isolations, and nothing of them stays.
soak: $(STAMP)
	@$(BIN)/python -m benchmarks.soak $(SOAK)

# Signals, kills, full disks, dead services, a clock that is set: what callers, probes and logs saw.
faults: $(STAMP)
	@$(BIN)/python -m benchmarks.faults
