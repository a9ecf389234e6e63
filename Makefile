# make          builds ./supervisor
# make demo     builds it and shows what it does, in 13 seconds
# make recording  records the picture in scripts/recording anew, from ./supervisor
# make test     the tests
# make soak     long runs under faults and load, about 20 minutes
# make fuzz     random histories against the policy, CASES=10000000 of each property
# make edge     builds ./supervisor-edge: static, lighter in numbers, its own code at a fixed address
# make cross TARGET=aarch64-unknown-linux-musl   builds ./supervisor-$(TARGET) for another processor
# make bench    measures it beside runsv and s6-supervise where they are installed, about 11 minutes
# make footprint  what a start takes, in counts, against the bounds in scripts/footprint.py
# make ci       formatting, lints, import directions, tests, documents, footprint, the package
# make documents  the man page and the completions, from scripts/documents/*.in and the table of options
# make others   type-checks it for FreeBSD, macOS and 32 bits (rustup fetches their std)
# make msrv     type-checks it with the oldest Rust that it promises
# make deny     licences, duplicates and known faults of what it is made of (cargo-deny)
# make install  PREFIX=/usr/local DESTDIR= BINARY=supervisor
# make deb      a package for Debian: ./heartbeat-supervisor_VERSION_ARCHITECTURE.deb

PREFIX ?= /usr/local
DESTDIR ?=
CARGO ?= cargo
CASES ?= 10000000
BINARY ?= supervisor
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.PHONY: build edge cross demo recording test soak fuzz bench footprint ci format lint imports docs documents \
    others install uninstall msrv deny deb check-deb clean

build:
	$(CARGO) build --locked --release
	install -m 755 $(TARGET_DIR)/release/supervisor supervisor

# Position-independent code would be relocated at each start, which makes 28 kB of it each instance's own.
# libc.a brings a part of libgcc that src/sys/unwind.rs stands in for: the first one counts.
EDGE := --cfg edge -C target-feature=+crt-static -C relocation-model=static -C link-arg=-Wl,-z,muldefs
HOST = $(shell rustc -vV | sed -n 's/^host: //p')

edge:
	RUSTFLAGS="$(EDGE)" $(CARGO) build --locked --release --target $(HOST) --target-dir $(TARGET_DIR)/edge
	install -m 755 $(TARGET_DIR)/edge/$(HOST)/release/supervisor supervisor-edge

# By its name for Debian's compilers: aarch64-linux-gnu-gcc. Targets with musl bring their C library and are
# linked by what comes with rustc, so that they need no compiler; LINKER= names another.
TRIPLE = $(patsubst armv7-%,arm-%,$(patsubst riscv64gc-%,riscv64-%,$(subst -unknown-,-,$(TARGET))))
LINKER = $(if $(findstring -musl,$(TARGET)),rust-lld,$(TRIPLE)-gcc)

cross:
	@[ -n "$(TARGET)" ] || { echo "make cross: for what? TARGET=aarch64-unknown-linux-musl, say" >&2; exit 2; }
	@[ $(LINKER) = rust-lld ] || command -v $(LINKER) >/dev/null || { echo "make cross: $(LINKER) is missing," \
	    "which links for $(TARGET): apt-get install $(LINKER:%-gcc=gcc-%)" >&2; exit 1; }
	rustup target add $(TARGET)
	RUSTFLAGS="-C linker=$(LINKER)" $(CARGO) build --locked --release --target $(TARGET)
	install -m 755 $(TARGET_DIR)/$(TARGET)/release/supervisor supervisor-$(TARGET)

demo: build
	@scripts/demo.sh

recording: build
	python3 scripts/recording/record.py

test:
	$(CARGO) test --locked

soak: build
	python3 scripts/soak.py

fuzz:
	PROPTEST_CASES=$(CASES) $(CARGO) test --locked --release --lib supervisor::tests

bench: build edge
	python3 scripts/bench.py --supervisor ./supervisor --edge ./supervisor-edge

footprint: build
	python3 scripts/footprint.py --supervisor ./supervisor

ci: format lint imports test docs footprint check-deb

format:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings

imports:
	python3 scripts/check_layout.py

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

documents:
	$(CARGO) run --locked --quiet --example documents scripts/documents

others:
	for target in x86_64-unknown-freebsd x86_64-apple-darwin i686-unknown-linux-musl; do \
	    rustup target add $$target && $(CARGO) clippy --locked --target $$target -- -D warnings || exit; done

# What goes where: the file here, its directory below PREFIX, its name there, its mode.
FILES := $(BINARY):bin:supervisor:755 scripts/fleet.sh:bin:supervisor-fleet:755 \
    scripts/documents/supervisor.1:share/man/man1:supervisor.1:644 \
    scripts/documents/supervisor-fleet.1:share/man/man1:supervisor-fleet.1:644 \
    scripts/documents/supervisor.bash:share/bash-completion/completions:supervisor:644 \
    scripts/documents/_supervisor:share/zsh/site-functions:_supervisor:644 \
    scripts/documents/supervisor.fish:share/fish/vendor_completions.d:supervisor.fish:644 \
    scripts/documents/supervisor-fleet.bash:share/bash-completion/completions:supervisor-fleet:644 \
    scripts/documents/_supervisor-fleet:share/zsh/site-functions:_supervisor-fleet:644 \
    scripts/documents/supervisor-fleet.fish:share/fish/vendor_completions.d:supervisor-fleet.fish:644 \
    scripts/recipes/systemd/supervisor@.service:lib/systemd/system:supervisor@.service:644 \
    scripts/recipes/systemd/supervisor-fleet.service:lib/systemd/system:supervisor-fleet.service:644
FOR_EACH_FILE := set -e; for file in $(FILES); do IFS=:; set -- $$file; IFS=' ';

# Root, who installs, may have no Rust: then it is what was built before.
install:
	@if [ $(BINARY) = supervisor ] && command -v $(CARGO) >/dev/null; then $(MAKE) build; fi
	@$(FOR_EACH_FILE) install -D -m $$4 $$1 $(DESTDIR)$(PREFIX)/$$2/$$3; echo $(DESTDIR)$(PREFIX)/$$2/$$3; done
	@cd $(DESTDIR)$(PREFIX)/lib/systemd/system && \
	    sed -i 's|/usr/local|$(PREFIX)|' supervisor@.service supervisor-fleet.service

uninstall:
	@$(FOR_EACH_FILE) rm -f $(DESTDIR)$(PREFIX)/$$2/$$3; done

# The oldest Rust that Cargo.toml promises.
MSRV = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
msrv:
	rustup toolchain install $(MSRV) --profile minimal
	$(CARGO) +$(MSRV) check --locked --all-targets --target-dir $(TARGET_DIR)/msrv

# Licences, duplicate versions, sources; and known faults, whose list it fetches from GitHub.
deny:
	@command -v cargo-deny >/dev/null || { echo "make deny: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny --locked --config scripts/deny.toml check licenses bans sources advisories

deb:
	rm -rf $(TARGET_DIR)/deb
	@$(MAKE) --no-print-directory install PREFIX=/usr DESTDIR=$(TARGET_DIR)/deb
	scripts/deb/build.sh $(TARGET_DIR)/deb

check-deb: deb
	scripts/deb/check.sh

clean:
	$(CARGO) clean
	rm -f supervisor supervisor-* heartbeat-supervisor_*.deb
