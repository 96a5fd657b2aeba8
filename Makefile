# Every target does its own set-up and is quick the second time.
.PHONY: demo serve test check bench clean

demo:   ; @scripts/demo
serve:  ; @scripts/serve $(ARGS)
test:   ; @scripts/test
check:  ; @scripts/check
bench:  ; @scripts/bench $(ARGS)
clean:  ; rm -rf .venv dist build src/pentad/execution/native/lib .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage-results.jsonl
