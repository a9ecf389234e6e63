# make          builds ./supervisor
# make demo     builds it and shows what it does, in half a minute
# make test     the tests
# make soak     long runs under faults and load, about 20 minutes
# make fuzz     random histories against the policy, CASES=10000000 of each property
# make footprint  what a start takes, in counts, against the bounds in scripts/footprint.py
# make ci       formatting, lints, import directions, tests, documents, footprint
# make others   type-checks it for FreeBSD and macOS (rustup fetches their std)
# make install  PREFIX=/usr/local DESTDIR=

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
CASES ?= 10000000
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.PHONY: build demo test soak fuzz footprint ci format lint imports docs others install uninstall clean

build:
	$(CARGO) build --locked --release
	install -m 755 $(TARGET_DIR)/release/supervisor supervisor

demo: build
	@scripts/demo.sh

test:
	$(CARGO) test --locked

soak: build
	python3 scripts/soak.py

fuzz:
	PROPTEST_CASES=$(CASES) $(CARGO) test --locked --release --lib supervisor::tests

footprint: build
	python3 scripts/footprint.py --supervisor ./supervisor

ci: format lint imports test docs footprint

format:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings

imports:
	python3 scripts/check_layout.py

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

others:
	for target in x86_64-unknown-freebsd x86_64-apple-darwin; do \
	    rustup target add $$target && $(CARGO) clippy --locked --target $$target -- -D warnings || exit; done

install: build
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 755 supervisor $(DESTDIR)$(PREFIX)/bin/supervisor

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/supervisor

clean:
	$(CARGO) clean
	rm -f supervisor
