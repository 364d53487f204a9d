#include "check.h"

int main(int argc, char** argv) { return router::check::run_all(argc, argv); }
