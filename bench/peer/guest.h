// What both first processes of a Linux guest begin and end with.
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

// Opens the console, and mounts what programs read about the machine.
static void start() {
    // The console exists only after this.
    mkdir("/dev", 0755);
    if (mount("devtmpfs", "/dev", "devtmpfs", 0, "") == 0) {
        int console = open("/dev/console", O_RDWR);
        dup2(console, 1);
        dup2(console, 2);
    }
    // ggml reads these to count the cores.
    mkdir("/proc", 0555);
    mkdir("/sys", 0555);
    mount("proc", "/proc", "proc", 0, "");
    mount("sysfs", "/sys", "sysfs", 0, "");
}

static void power_off() {
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
}
