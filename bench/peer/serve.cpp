// The first process of a Linux guest: loads drivers, sets the address and runs llama-server.
//
// The model disk is at `/disk`. The kernel passes unknown boot arguments in the environment:
// `server` holds llama-server's arguments, with blanks between them.
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <string>
#include <vector>

#include "guest.h"

static bool failed(const char *what, const char *of) {
    printf("peer: %s %s: %s\n", what, of, strerror(errno));
    return false;
}

// Loads all drivers. Their names have the order in which they need each other.
static bool load_drivers() {
    dirent **entries;
    const auto is_driver = [](const dirent *entry) { return (int)!!strstr(entry->d_name, ".ko"); };
    const int n = scandir("/", &entries, is_driver, alphasort);
    for (int i = 0; i < n; i++) {
        const std::string path = "/" + std::string(entries[i]->d_name);
        const int file = open(path.c_str(), O_RDONLY);
        const bool loaded = file >= 0 && syscall(SYS_finit_module, file, "", 0) == 0;
        if (!loaded) return failed("cannot load", entries[i]->d_name);
        close(file);
    }
    return true;
}

// Gives the card QEMU's first address, and turns it on.
static bool set_address() {
    const int control = socket(AF_INET, SOCK_DGRAM, 0);
    ifreq request = {};
    strcpy(request.ifr_name, "eth0");
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    for (auto [what, text] :
         {std::pair{SIOCSIFADDR, "10.0.2.15"}, {SIOCSIFNETMASK, "255.255.255.0"}}) {
        address.sin_addr.s_addr = inet_addr(text);
        memcpy(&request.ifr_addr, &address, sizeof address);
        if (ioctl(control, what, &request) != 0) return failed("cannot set", text);
    }
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    return ioctl(control, SIOCSIFFLAGS, &request) == 0 || failed("cannot turn on", "eth0");
}

static bool run() {
    if (!load_drivers() || !set_address()) return false;
    mkdir("/disk", 0555);
    if (mount("/dev/vda", "/disk", "vfat", MS_RDONLY, "") != 0) {
        return failed("cannot mount", "/dev/vda");
    }
    const char *words = getenv("server");
    std::vector<char *> arguments = {strdup("llama-server")};
    for (char *word = strtok(strdup(words ? words : ""), " "); word; word = strtok(nullptr, " ")) {
        arguments.push_back(word);
    }
    arguments.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        setenv("HOME", "/", 1);
        execv("/llama-server", arguments.data());
        failed("cannot run", "llama-server");
        _exit(1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("peer: llama-server ended with %#x\n", status);
    return false;
}

int main() {
    start();
    run();
    power_off();
    return 1;
}
