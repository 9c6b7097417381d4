// Products of rows, wherever they lie, with a matrix.
#pragma once

#include <cstdint>

#include "cpu.h"

namespace talipot {

// A matrix lies in panels of so many columns, each [depth, kPanel]: a panel stays in the first-level
// cache while all rows pass it.
constexpr int kPanel = 32;

// How many rows the widest level multiplies at once; lists of rows are filled up to a multiple.
constexpr int kMostRows = 12;

// For each of `count` rows the sum over `taps` of (its input for the tap) x (the tap's matrix).
//
//   inputs   [taps, stride] where each row's input for each tap lies, `depth` floats; filled up to
//            a multiple of kMostRows with inputs that may be read
//   panels   [columns / kPanel, taps, depth, kPanel]
//   results  [count, columns]
//
// A row's result does not depend on the rows beside it.
struct Product {
  const float* const* inputs;
  int64_t taps;
  int64_t stride;
  int64_t depth;
  const float* panels;
  int64_t columns;
  int64_t count;
  float* results;
};

void multiply(Isa isa, const Product& product);

}  // namespace talipot
