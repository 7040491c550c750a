#: Anchorite: a language model that boots on bare aarch64.
#:
#:   make run      boot a model in QEMU and show what it generates
#:   make chat     the same, as a conversation; /quit ends it
#:   make test     every check and test, the boots in QEMU included
#:   make torture  every fault there is to inject, and what takes long: up to an hour
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
#: Settings, with what they are if not given (make run PROMPT="It was late" TOKENS=40 SMP=2):
#:
#:   MODEL        a path to a GGUF file, one in test_models/, or a name below  tiny.gguf
#:   PROMPT       the text to go on from                                  Once upon a time
#:                in a chat, the first message                            none
#:   PROMPT_FILE  a file that holds that text, but for a newline at its end  none
#:   SYSTEM       the system message of a chat                            none
#:   TOKENS       tokens to generate at most                              128
#:   CTX          positions of the context                                256
#:   KV_CACHE     f16, f32 or q8_0: the format of the KV cache            f16
#:   CONTEXT_SHIFT  1: when the context is full, forget half and go on    0
#:   KEEP         tokens of the first prompt never forgotten then; -1: all  0
#:   TEMPERATURE  0 takes the likeliest token, 1 samples as trained       0
#:   TOP_K TOP_P MIN_P  which tokens are sampled from                     40 0.95 0.05
#:   REPEAT_PENALTY  above 1: the last tokens come less likely again      1
#:   SEED         seed of the sampler                                     another each time
#:   MODE         generate, chat, perplexity, bench or test               generate
#:   VERIFY       0: do not check the model's checksum                    1
#:   CONFIG       an anchorite.toml for the disk                          none
#:   SMP MEM CPU  cores, memory and processor of the machine              the host's, 1G
#:   GIC EL2      interrupt controller 2 or 3; EL2=1 boots at EL2         QEMU's choice
#:   BUS          mmio, mmio-legacy, pci or initrd                        mmio
#:   LOG REPORT   files for the serial line's bytes and for a report      none
#:                LOG is also what make board-report reads
#:   TIMEOUT      seconds that all of it may take                         3600
#:   ARGS         more arguments for the harness (target/debug/anchorite-qemu --help)
#:                ARGS, BENCH and GDB_ARGS are cut at each blank, quotes or not
#:   BENCH        arguments for make bench ("instructions --shape tiny", "--help")  none
#:   DEVICE       the card for make flash-pi4: /dev/sdX; it asks first         none: only the image
#:   FIRMWARE     a folder with the Pi's firmware           from Debian's packages, ci/firmware.sh
#:   M1N1 DTB     m1n1.bin, and device trees of Macs with blanks between      none
#:   USB          a clone of m1n1's sources: start it over USB, by what the model's size allows  none
#:   BOOTARGS     boot arguments for either board ("max_tokens=20 seed=7")    none
#:   FUZZ_SECONDS how long make fuzz runs each target                     10
#:   OUT          the file to write                       target/boards/rpi4.img, m1.bin
#:   TOOLCHAIN    rustup or debian, see ci/toolchain.sh                   what there is
#:
#: A setting that is empty is as one that is not given, but for the texts PROMPT and SYSTEM. One that does
#: nothing for what is made is an error.
#: Models that are fetched when MODEL names them, checked and kept in target/models/, and the settings
#: that they run with where none are given (ci/models.txt):
#:

all_goals := help setup build run chat bench debug test torture test-real test-pi4 test-m1n1 fuzz \
             flash-pi4 flash-m1 board-report clean
settings := MODEL PROMPT PROMPT_FILE SYSTEM TOKENS CTX KV_CACHE CONTEXT_SHIFT KEEP TEMPERATURE \
            TOP_K TOP_P MIN_P REPEAT_PENALTY SEED MODE VERIFY CONFIG SMP MEM CPU GIC EL2 BUS LOG \
            REPORT TIMEOUT ARGS BENCH TOOLCHAIN GDB_ARGS DEVICE FIRMWARE M1N1 DTB USB BOOTARGS OUT \
            FUZZ_SECONDS
# What the goals take of these. Nothing that the command line sets may do nothing.
takes.run := MODEL PROMPT PROMPT_FILE SYSTEM TOKENS CTX KV_CACHE CONTEXT_SHIFT KEEP TEMPERATURE \
             TOP_K TOP_P MIN_P REPEAT_PENALTY SEED MODE VERIFY CONFIG SMP MEM CPU GIC EL2 BUS LOG \
             REPORT TIMEOUT ARGS TOOLCHAIN
takes.chat := $(takes.run)
takes.debug := $(takes.run) GDB_ARGS
takes.bench := BENCH TOOLCHAIN
takes.flash-pi4 := MODEL PROMPT_FILE CONFIG BOOTARGS FIRMWARE DEVICE OUT TOOLCHAIN
takes.flash-m1 := MODEL PROMPT_FILE CONFIG BOOTARGS M1N1 DTB USB OUT TOOLCHAIN
takes.board-report := LOG TOOLCHAIN
takes.fuzz := FUZZ_SECONDS TOOLCHAIN
takes.setup := TOOLCHAIN
takes.build := TOOLCHAIN
takes.test := TOOLCHAIN
takes.torture := TOOLCHAIN
takes.test-real := TOOLCHAIN
takes.test-pi4 := TOOLCHAIN
takes.test-m1n1 := TOOLCHAIN
goals := $(or $(MAKECMDGOALS),help)
given := $(foreach s,$(settings),$(if $(filter command,$(firstword $(origin $s))),$s))
unused := $(filter-out $(foreach g,$(goals),$(takes.$g)),$(given))
$(if $(unused),$(if $(filter-out $(all_goals),$(goals)),,\
    $(error `make $(goals)` does nothing with $(unused): see `make help`)))
# The scripts ask the system what this process was given: make cuts blanks off the start of values.
override MAKE_PID := $(shell echo $$PPID)
export MAKE_PID
# Handed on in the environment, letter by letter: make must not expand the `$` of a prompt.
$(foreach s,$(settings),$(if $(filter-out undefined,$(origin $s)), \
    $(eval override $s := $$(value $s))$(eval export $s)))
# Whatever else the command line sets is a slip (`TOKEN=4`), and must not go unnoticed.
unknown := $(strip $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v)))
$(if $(unknown),$(error there is no setting $(unknown): `make help` lists them))

.PHONY: $(all_goals)
help:
	@sed -n 's/^#: \{0,1\}//p' Makefile
	@ci/models.sh help

setup:
	@ci/setup.sh all

build:
	@ci/setup.sh build
	@ci/build.sh

run chat debug:
	@ci/run.sh $@

bench:
	@ci/setup.sh $(if $(filter peer,$(BENCH)),peer,bench)
	@ci/build.sh
	@target/debug/anchorite-bench $$BENCH

flash-pi4 flash-m1:
	@ci/flash.sh $(subst flash-,,$@)

board-report:
	@[ -n "$$LOG" ] || { echo 'Name the log: make board-report LOG=serial.log' >&2; exit 2; }
	@ci/setup.sh build
	@ci/toolchain.sh host build --quiet
	@target/debug/image-builder report -- "$$LOG"

test:
	@ci/setup.sh test
	@ci/test.sh

torture:
	@ci/setup.sh test
	@ci/build.sh
	@ci/boots.sh --group torture --table

test-real:
	@ci/setup.sh run
	@ci/build.sh
	@ci/real.sh

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
