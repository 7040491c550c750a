/* For this computer, in place of m1n1's header of this name for an M1. */
#define MAX_CPUS 24
void smp_start_secondaries(void);
bool smp_is_alive(int cpu);
#define smp_call0(cpu, f) ((void)(f))
#define smp_wait(cpu)     ((void)0)
