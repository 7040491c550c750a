/* For this computer, in place of m1n1's header of this name for an M1. */
int display_configure(const char *config);
