#: Anchorite: a language model that boots on bare aarch64.
#:
#:   make run      boot a model in QEMU and show what it generates
#:   make chat     the same, as a conversation; /quit ends it
#:   make serve    a server with OpenAI's HTTP API and a chat page; see docs/serving.md
#:   make test     the checks and tests, the boots in QEMU included: about a quarter of an hour
#:   make test-all  these in their long form, the endurance tests and the second toolchain too
#:   make torture  every fault and attack there is, and what takes long: up to two hours
#:   make test-real  a real model, fetched by name, against float64: on this computer and in QEMU
#:   make test-pi4  the boots of QEMU's Raspberry Pi 4 alone
#:   make test-m1n1  only the boots as m1n1 starts the image on an Apple M1, played in QEMU
#:   make fuzz     only the fuzz targets, ten seconds each; see fuzz/README.md
#:   make build    the kernel's image and the commands for the host
#:   make bench    measure: instructions a token, tokens a second, and more; see bench/README.md
#:   make debug    boot with gdb attached and symbols loaded (gdb's arguments: GDB_ARGS)
#:   make flash-pi4   an SD card for a Raspberry Pi 4, written to DEVICE; see docs/boards.md
#:   make flash-m1    a file that m1n1 boots on an Apple M1, and how to start it
#:   make board-report LOG=file  a board's serial log, as a report to paste
#:   make setup    install what all of these need; each also does so for itself
#:   make clean    remove what was built
#:
#: Settings of the machine, the disk and the commands, with their defaults
#: (make run MODEL=tiny.gguf SMP=2 MEM=1G); those of what the guest does follow below:
#:
#:   MODEL        a path to a GGUF file, one in test_models/, or a name below  tiny.gguf
#:   CONFIG       an anchorite.toml for the disk                          none
#:   SMP MEM CPU  cores, memory and processor of the machine              the host's, 1G
#:   GIC EL2      interrupt controller 2 or 3; EL2=1 boots at EL2         QEMU's choice
#:   BUS          mmio, mmio-legacy, pci or initrd                        mmio
#:   LOG REPORT   files for the serial line's bytes and for a report      none
#:                LOG is also what make board-report reads
#:   TIMEOUT      seconds that all of it may take                         3600; chat, serve: none
#:   PORT         port of this computer that leads to make serve          8080; 0: a free one
#:   ARGS         more arguments for the harness (target/debug/anchorite-qemu --help)
#:                ARGS, BENCH and GDB_ARGS are cut at each blank, quotes or not
#:   BENCH        arguments for make bench ("instructions --shape tiny", "--help")  none
#:   DEVICE       the card for make flash-pi4: /dev/sdX; it asks first         none: only the image
#:   FIRMWARE     a folder with the Pi's firmware           from Debian's packages, ci/firmware.sh
#:   M1N1 DTB     m1n1.bin, and device trees of Macs with blanks between      none
#:   USB          a clone of m1n1's sources: start it over USB, by what the model's size allows  none
#:   BOOTARGS     boot arguments for either board ("max_tokens=20 seed=7")    none
#:                settings in small letters follow (make flash-pi4 max_tokens=20)
#:   FUZZ_SECONDS how long make fuzz runs each target                     10
#:   OUT          the file to write                       target/boards/rpi4.img, m1.bin
#:   TOOLCHAIN    rustup or debian, see ci/toolchain.sh                   what there is
#:
#: An empty setting counts as not given, except PROMPT, SYSTEM and settings in small letters. A setting
#: without effect on what is made is an error.

# `keys` and `variable.KEY`: the settings of what the guest does, by both names.
include ci/settings.mk
guest := $(foreach k,$(keys),$(variable.$k))
disk := MODEL PROMPT_FILE CONFIG

all_goals := help setup build run chat serve bench debug test test-all torture test-real test-pi4 test-m1n1 fuzz \
             flash-pi4 flash-m1 board-report clean
# What the goals take. Nothing that the command line sets may do nothing.
$(foreach g,$(filter-out help clean,$(all_goals)),$(eval takes.$g := TOOLCHAIN))
takes.run += $(disk) $(guest) $(keys) SMP MEM CPU GIC EL2 BUS LOG REPORT TIMEOUT ARGS
takes.chat := $(takes.run)
takes.serve := $(takes.run) PORT
takes.debug := $(takes.run) GDB_ARGS
takes.bench += BENCH
takes.flash-pi4 += $(disk) $(keys) BOOTARGS FIRMWARE DEVICE OUT
takes.flash-m1 += $(disk) $(keys) BOOTARGS M1N1 DTB USB OUT
takes.board-report += LOG
takes.fuzz += FUZZ_SECONDS
settings := $(sort $(foreach g,$(all_goals),$(takes.$g)))
goals := $(or $(MAKECMDGOALS),help)
given := $(foreach s,$(settings),$(if $(filter command,$(firstword $(origin $s))),$s))
unused := $(filter-out $(foreach g,$(goals),$(takes.$g)),$(given))
$(if $(unused),$(if $(filter-out $(all_goals),$(goals)),,\
    $(error `make $(goals)` does nothing with $(unused): see `make help`)))
# The scripts ask the system what this process was given: make cuts blanks off the start of values.
override MAKE_PID := $(shell echo $$PPID)
export MAKE_PID
# Handed on in the environment, letter by letter: make must not expand the `$` of a prompt. Settings in
# small letters go as SET_KEY, and their list with them: names such as `log` may mean something else there.
export SET_KEYS := $(filter $(given),$(keys))
$(foreach k,$(SET_KEYS),$(eval override $k := $$(value $k))$(eval unexport $k) \
    $(eval export SET_$k := $$(value $k)))
$(foreach s,$(filter-out $(keys),$(settings)),$(if $(filter-out undefined,$(origin $s)), \
    $(eval override $s := $$(value $s))$(eval export $s)))
# Whatever else the command line sets is a slip (`TOKEN=4`), and must not go unnoticed.
unknown := $(strip $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v)))
similar := $(if $(unknown),$(shell printf '%s\n' $(settings) | awk -v slip='$(firstword $(unknown))' -f ci/similar.awk))
$(if $(unknown),$(error there is no setting $(unknown): \
    $(if $(similar),did you mean $(similar)? )`make help` lists them))

.PHONY: $(all_goals)
help:
	@sed -n 's/^#: \{0,1\}//p' Makefile ci/settings.mk
	@printf '%s\n' '' 'Models that are fetched when MODEL names them, checked and kept in target/models/, and the' \
	    'settings that they run with where none are given (ci/models.txt):' ''
	@ci/models.sh help

setup:
	@ci/setup.sh all

build:
	@ci/setup.sh build
	@ci/build.sh

run chat serve debug:
	@ci/run.sh $@

bench:
	@ci/setup.sh $(if $(filter peer serve,$(BENCH)),peer,bench)
	@ci/build.sh
	@target/debug/anchorite-bench $$BENCH

flash-pi4 flash-m1:
	@ci/flash.sh $(subst flash-,,$@)

board-report:
	@[ -n "$$LOG" ] || { echo 'Name the log: make board-report LOG=serial.log' >&2; exit 2; }
	@ci/setup.sh build
	@CARGO_TERM_QUIET=true ci/build.sh commands
	@target/debug/image-builder report -- "$$LOG"

test:
	@ci/setup.sh test
	@ci/test.sh

test-all:
	@ci/setup.sh test
	@ci/test.sh all

torture:
	@ci/setup.sh test
	@ci/build.sh
	@ci/boots.sh --group torture --table

test-real:
	@ci/setup.sh run
	@ci/build.sh
	@ci/boots.sh --group real

test-pi4:
	@ci/setup.sh test
	@ci/build.sh
	@ci/boots.sh --group pi4

test-m1n1:
	@ci/setup.sh test
	@ci/build.sh
	@ci/boots.sh m1n1

fuzz:
	@ci/setup.sh test
	@ci/fuzz.sh $${FUZZ_SECONDS:-10}

clean:
	rm -rf target
