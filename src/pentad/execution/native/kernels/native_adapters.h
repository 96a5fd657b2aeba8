// The C interface to low-rank adapters, beside native.h. An adapter belongs to the model that it was made for.
#pragma once
#include "native.h"

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
#ifdef __cplusplus
extern "C" {
#endif

typedef struct pentad_adapter pentad_adapter;

pentad_adapter* pentad_adapter_create(const pentad_model*);
void pentad_adapter_destroy(pentad_adapter*);
// Adds up [rows][rank] times down [rank][cols] to a matrix of a layer: q, k, v, o, gate, up or down. Rows lie as the
// kernels have them, rotary pairs taken apart. Both are copied. -1: no such matrix, or one of another size.
int pentad_adapter_set(pentad_adapter*, int32_t tensor, int32_t layer, int32_t rank, int32_t rows, int32_t cols,
                       const float* down, const float* up);
// The adapters of the sequences of all steps from now on, null for one without; a count of 0 takes them away. They
// must outlive those steps.
int pentad_adapt(pentad_model*, const pentad_adapter* const* adapters, int32_t count);

#ifdef __cplusplus
}
#endif
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
