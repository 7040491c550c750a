/* What m1n1's payload parser calls, played, and its verdict: see ci/boots/src/boots/m1n1/payload.rs.
 *
 *   parse FILE START TARGET KERNEL INITRD
 *
 * The payloads begin at byte START of FILE; the Mac's target type is TARGET. The kernel and the initrd that the
 * parser finds go to the files KERNEL and INITRD, and all else to standard output, a line each.
 */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "adt.h"
#include "chainload.h"
#include "cpufreq.h"
#include "display.h"
#include "heapblock.h"
#include "kboot.h"
#include "mitigations.h"
#include "payload.h"
#include "smp.h"
#include "utils.h"

#include "libfdt/libfdt.h"
#include "minilzlib/minlzma.h"

/* A page of an Apple M1, to which m1n1 is loaded; and the room for what is unpacked. */
#define PAGE  (16 << 10)
#define ARENA (2UL << 30)

char *payload;
void *adt;
int boot_cpu_idx;

static const char *target, *kernel_file, *initrd_file;
static u8 *heap;

static void fail(const char *what)
{
    printf("failed: %s\n", what);
    exit(1);
}

static void save(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file))
        fail(path);
}

const void *adt_getprop(const void *tree, int node, const char *name, u32 *length)
{
    UNUSED(tree);
    UNUSED(length);
    return node == 0 && !strcmp(name, "target-type") ? target : NULL;
}

void *heapblock_alloc_aligned(size_t size, size_t align)
{
    u8 *block = (u8 *)(((uintptr_t)heap + align - 1) & ~(align - 1));
    heap = block + size;
    return block;
}

void kboot_set_initrd(void *start, size_t size)
{
    if ((uintptr_t)start % PAGE)
        fail("the initrd is not on a page");
    save(initrd_file, start, size);
}

int kboot_set_chosen(const char *name, const char *value)
{
    printf("chosen: %s=%s\n", name, value);
    return 0;
}

int kboot_prepare_dt(void *tree)
{
    /* m1n1 makes a copy of it with room for what it adds. */
    int size = fdt_totalsize(tree) + PAGE;
    void *copy = malloc(size);
    if (fdt_check_header(tree) || !copy || fdt_open_into(tree, copy, size))
        fail("the device tree cannot be opened");
    printf("tree: %s\n", (const char *)fdt_getprop(tree, 0, "compatible", NULL));
    return 0;
}

int kboot_boot(void *kernel)
{
    const struct kernel_header *header = kernel;
    if ((uintptr_t)kernel % (2 << 20))
        fail("the kernel is not at 2 MiB");
    save(kernel_file, kernel, header->image_size);
    printf("boots\n");
    return 0;
}

int chainload_load(const char *spec, char **vars, size_t count)
{
    UNUSED(spec);
    UNUSED(vars);
    UNUSED(count);
    return -1;
}

bool XzDecode(uint8_t *in, uint32_t *in_size, uint8_t *out, uint32_t *out_size)
{
    UNUSED(in);
    UNUSED(in_size);
    UNUSED(out);
    UNUSED(out_size);
    return false;
}

int display_configure(const char *config)
{
    UNUSED(config);
    return -1;
}

void mitigations_configure(const char *config)
{
    UNUSED(config);
}

void mitigations_perform(void) {}
void smp_start_secondaries(void) {}

int cpufreq_init(void)
{
    return 0;
}

bool smp_is_alive(int cpu)
{
    UNUSED(cpu);
    return false;
}

int main(int count, char **arguments)
{
    if (count != 6)
        return 2;
    target = arguments[3];
    kernel_file = arguments[4];
    initrd_file = arguments[5];

    FILE *file = fopen(arguments[1], "rb");
    if (!file || fseek(file, 0, SEEK_END))
        fail(arguments[1]);
    size_t size = ftell(file);
    rewind(file);
    u8 *arena = mmap(NULL, ARENA + size + PAGE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED)
        fail("memory");
    u8 *start = (u8 *)(((uintptr_t)arena + PAGE - 1) & ~(uintptr_t)(PAGE - 1));
    if (fread(start, 1, size, file) != size)
        fail(arguments[1]);
    payload = (char *)start + strtoul(arguments[2], NULL, 0);
    heap = start + size;
    return payload_run() ? 1 : 0;
}
