/* `attn trace` in a terminal: matrices, tiles and statistics as columns of numbers. */
#ifndef ATTN_TOOL_TRACE_TEXT_H
#define ATTN_TOOL_TRACE_TEXT_H

#include "trace_record.h"

/* The columns that trace_text_steps and trace_text_standard need for an input. */
int64_t trace_text_width(const trace_input *input, lab_tiles tiles);

void trace_text_heading(const char *title);
void trace_text_inputs(const trace_input *input, lab_tiles tiles);

/* Standard attention: A and P as wholes, then O. */
void trace_text_standard(const trace_run *standard);

/* LAB_SIMPLE or LAB_FLASH2 from row tile first_i on: left the whole A, right each tile with m, l and O after it. */
void trace_text_steps(const trace_run *run, int64_t first_i);

/* Bytes and the largest difference of the results. */
void trace_text_summary(const trace_run *standard, const trace_run *flash2);

#endif
