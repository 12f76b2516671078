// What host and shaders agree on: parameter structs, plain data of the same layout in C++ and in the Metal Shading
// Language, and the numbers of the buffers. Metal's `constant AttentionParams&` is bound as bytes.
#pragma once

#include "turboquant/format/portable.h"

namespace tq {

// Element types of rows from and to the outside, as FloatType numbers them.
TQ_FORMAT_TABLE int kElementF32 = 0;
TQ_FORMAT_TABLE int kElementF16 = 1;
TQ_FORMAT_TABLE int kElementBf16 = 2;

// Masks: none, one byte a cell (not 0: the cell is seen), or what is added to the logits. Numbers go through f16, which
// is what the CPU's kernels take.
TQ_FORMAT_TABLE int kMaskNone = 0;
TQ_FORMAT_TABLE int kMaskBool = 1;
TQ_FORMAT_TABLE int kMaskF16 = 2;
TQ_FORMAT_TABLE int kMaskF32 = 3;
TQ_FORMAT_TABLE int kMaskBf16 = 4;

// Kernels are told how codes are to be read by one number: their bits, and this if they are trellis codes.
TQ_FORMAT_TABLE int kTrellisFlag = 16;

// Numbers of the buffers of all attention kernels: the same buffer has the same number in each.
TQ_FORMAT_TABLE int kBufferParams = 0;
TQ_FORMAT_TABLE int kBufferLengths = 1;  // int32 [n_stream][2]: cells and query tokens of each stream
TQ_FORMAT_TABLE int kBufferQuery = 2;
TQ_FORMAT_TABLE int kBufferKeys = 3;        // records
TQ_FORMAT_TABLE int kBufferValues = 4;      // records
TQ_FORMAT_TABLE int kBufferKeyTable = 5;    // int32, the record of each block of each stream
TQ_FORMAT_TABLE int kBufferValueTable = 6;
TQ_FORMAT_TABLE int kBufferMask = 7;
TQ_FORMAT_TABLE int kBufferSinks = 8;           // f32 [n_head]
TQ_FORMAT_TABLE int kBufferKeyRotation = 9;     // f32 [1 or n_head_kv][3][head_dim]: RotationRow
TQ_FORMAT_TABLE int kBufferValueRotation = 10;
TQ_FORMAT_TABLE int kBufferPreparedQuery = 11;  // f16 [row][head_dim_k]: integers of -127..127
TQ_FORMAT_TABLE int kBufferLogitScale = 12;     // f32 [row]
TQ_FORMAT_TABLE int kBufferPartialStats = 13;   // f32 [row][chunk][2]: maximum (base 2), sum
TQ_FORMAT_TABLE int kBufferPartialOut = 14;     // f32 [row][chunk][head_dim_v]
TQ_FORMAT_TABLE int kBufferOut = 15;
TQ_FORMAT_TABLE int kBufferExactHidden = 16;  // uint32 [stream][token][hidden_words]: a bit for each exact cell
TQ_FORMAT_TABLE int kBufferExactList = 17;    // ExactEntry [stream][token][n_exact]
TQ_FORMAT_TABLE int kBufferExactKeys = 18;    // f16 rows of n_embd
TQ_FORMAT_TABLE int kBufferExactValues = 19;

// Rows of a rotation's diagonals (format/rotation.h).
TQ_FORMAT_TABLE int kRotationFirst = 0;
TQ_FORMAT_TABLE int kRotationFirstInverse = 1;
TQ_FORMAT_TABLE int kRotationSecond = 2;

// Strides are in elements.
struct RowStrides {
    int64_t stream, token, head;
};

struct AttentionParams {
    RowStrides q, mask, out;
    int64_t k_stream_blocks, v_stream_blocks;  // blocks (of the table, or records) from a stream to the next
    int64_t k_record_bytes, v_record_bytes;
    int64_t window;       // 0: none
    int32_t n_head, n_head_kv, n_tokens, n_stream;
    int32_t causal;
    int32_t n_chunks;     // partials that a row has room for
    int32_t n_row_tiles;  // of a KV head
    int32_t q_type, out_type, mask_type;
    int32_t has_sinks, has_k_table, has_v_table;
    int32_t k_rotation_stride, v_rotation_stride;  // floats from one KV head's diagonals to the next's; 0: all share
    float logit_factor;  // scale, with a softcap; else scale times log2 e
    float softcap;       // 0: none
    int32_t n_exact;     // entries of a token's list; 0: no exact rows
    int32_t hidden_words;
    int32_t padding;
};

// Numbers of the buffers of append and decode.
TQ_FORMAT_TABLE int kBufferRows = 2;      // rows in, or out
TQ_FORMAT_TABLE int kBufferRecords = 3;   // written by append
TQ_FORMAT_TABLE int kBufferTable = 4;     // as kBufferKeyTable
TQ_FORMAT_TABLE int kBufferRotation = 5;  // as kBufferKeyRotation

// Of append and decode. kBufferLengths has the first cell and the number of cells of each stream.
struct RowsParams {
    RowStrides rows;  // `token` is from one cell's row to the next's
    int64_t stream_blocks, record_bytes;
    int32_t n_head_kv, type;
    int32_t has_table, rotation_stride;
};

// A cell that a token attends to as an exact row. k, v: rows in their buffers; k < 0 ends a list.
struct ExactEntry {
    int32_t k, v;
    int32_t cell;
};

}  // namespace tq
