# Read by CMake in llama.cpp's own `project()` call (CMAKE_PROJECT_INCLUDE in `.cargo/config.toml`).
#
# llama.cpp's library of helpers for its programs (arguments, downloads, chat templates) and the HTTP client below it are
# half of what its build compiles. The worker calls none of them, and the binding that builds them asks for them by a
# default feature that a dependant cannot switch off.
set(LLAMA_BUILD_COMMON OFF CACHE BOOL "the worker calls none of it" FORCE)
