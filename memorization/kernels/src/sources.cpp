// Which sources the library was built from; library.py compares it with those beside it.
#include "export.h"

TALIPOT_EXPORT const char* talipot_sources() { return TALIPOT_SOURCES; }
