/* For this computer, in place of m1n1's header of this name for an M1. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "types.h"
#define mrs(reg)        0
#define msr(reg, value) ((void)(value))
extern int boot_cpu_idx;
extern char *payload;
#define _payload_start payload
