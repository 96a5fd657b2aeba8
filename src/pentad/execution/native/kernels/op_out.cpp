#include "step.h"

namespace pentad {

void add_product(Step& s, const Matrix& m, const Input& x, int rank) {
  auto [begin, end] = s.share(m.rows / kRows, rank);
  s.products.multiply(m, x, begin, end, rank, [&](int group, int t, f32x16 v) {
    float* p = s.row(t) + group * kRows;
    store(p, load(p) + v);
  });
  s.team.barrier();
}

}  // namespace pentad
