// The numerical parts of a page that holds its network: build makes hyperrecon_jax/explorer/static/network/network.wasm.
//
// An image is (h, w, channels) float32; its channels are a multiple of 4, and those added are zero. A convolution reads
// what the one before has written, and applies that one's norm and ReLU meanwhile, as it does the pooling or the enlarging
// that lies between. So nothing but the results of convolutions is ever stored.
#include <wasm_simd128.h>

typedef v128_t vec;

#define EXPORT(name) __attribute__((export_name(#name)))
#define INLINE static inline __attribute__((always_inline))

enum { TILES = 8 };                    // that are convolved together
enum { MARGIN = 16 };                  // between the numbers of two points, lest they share a place in the cache
enum { SIDE = 6, POINTS = 36, OUT = 4 }; // Winograd's F(4 x 4, 3 x 3): tiles of 6 x 6 pixels give 4 x 4 results

INLINE vec load(const float *from) { return wasm_v128_load(from); }
INLINE void store(float *to, vec value) { wasm_v128_store(to, value); }
INLINE vec splat(float value) { return wasm_f32x4_splat(value); }
INLINE vec add(vec a, vec b) { return wasm_f32x4_add(a, b); }
INLINE vec sub(vec a, vec b) { return wasm_f32x4_sub(a, b); }
INLINE vec mul(vec a, vec b) { return wasm_f32x4_mul(a, b); }
INLINE int step_of(int channels) { return TILES * channels + MARGIN; } // from the numbers of a point to those of the next
INLINE int smaller(int a, int b) { return a < b ? a : b; }

// ---------------------------------------------------------------------------------------------------- rows of the input

enum { PLAIN, RECTIFIED, POOLED, JOINED };

// Where a convolution reads: a result of another one, with the norm after it (gain and shift of each channel).
typedef struct {
  const float *data, *gain, *shift;
  int channels;
} Source;

INLINE vec affine(const Source *x, const float *from, int c) {
  return add(mul(load(from + c), load(x->gain + c)), load(x->shift + c));
}

INLINE vec rectify(vec value) { return wasm_f32x4_pmax(value, splat(0)); }

static void copy_row(const Source *x, int row, int w, float *to) {
  const float *from = x->data + row * w * x->channels;
  for (int i = 0; i < w * x->channels; i += 4) store(to + i, load(from + i));
}

static void rectify_row(const Source *x, int row, int w, float *to, int step) {
  const float *from = x->data + row * w * x->channels;
  for (int column = 0; column < w; column++, from += x->channels, to += step) {
    for (int c = 0; c < x->channels; c += 4) store(to + c, rectify(affine(x, from, c)));
  }
}

// A row of the largest of each 2 x 2 pixels, after norm and ReLU.
static void pool_row(const Source *x, int row, int w, float *to) {
  const int channels = x->channels;
  const float *upper = x->data + 4 * row * w * channels;
  const float *lower = upper + 2 * w * channels;
  for (int column = 0; column < w; column++, upper += 2 * channels, lower += 2 * channels, to += channels) {
    for (int c = 0; c < channels; c += 4) {
      const vec above = wasm_f32x4_pmax(affine(x, upper, c), affine(x, upper + channels, c));
      const vec below = wasm_f32x4_pmax(affine(x, lower, c), affine(x, lower + channels, c));
      store(to + c, rectify(wasm_f32x4_pmax(above, below)));
    }
  }
}

// For an entry of an axis twice as long, the entry before it; `share` is its distance from that (aligned corners).
INLINE int place(int i, int size, float *share) {
  const double position = (double)i * (size - 1) / (2 * size - 1);
  const int before = smaller((int)position, size > 1 ? size - 2 : 0);
  *share = position - before;
  return before;
}

// A row of an image of h x w pixels enlarged twice by bilinear interpolation, after norm and ReLU.
static void enlarge_row(const Source *x, int row, int h, int w, float *to, int step, float *room) {
  const int channels = x->channels;
  float share;
  const int above = place(row, h, &share);
  const float *upper = x->data + above * w * channels;
  const float *lower = upper + (h > 1 ? w * channels : 0);
  for (int column = 0; column < w; column++) {
    for (int c = 0; c < channels; c += 4) {
      const int i = column * channels;
      const vec first = rectify(affine(x, upper + i, c));
      const vec second = rectify(affine(x, lower + i, c));
      store(room + i + c, add(first, mul(sub(second, first), splat(share))));
    }
  }
  const int next = w > 1 ? channels : 0;
  for (int column = 0; column < 2 * w; column++, to += step) {
    const float *left = room + place(column, w, &share) * channels;
    for (int c = 0; c < channels; c += 4) {
      const vec value = load(left + c);
      store(to + c, add(value, mul(sub(load(left + next + c), value), splat(share))));
    }
  }
}

static void make_row(int kind, const Source *x, const Source *skip, int row, int h, int w, float *to, float *room) {
  if (kind == PLAIN) copy_row(x, row, w, to);
  else if (kind == RECTIFIED) rectify_row(x, row, w, to, x->channels);
  else if (kind == POOLED) pool_row(x, row, w, to);
  else {
    const int step = x->channels + skip->channels;
    enlarge_row(x, row, h / 2, w / 2, to, step, room);
    rectify_row(skip, row, w, to + x->channels, step);
  }
}

// ------------------------------------------------------------------------------------------------------ the convolution

// B^T x, for six pixels that are `step` apart.
INLINE void transform_input(const vec *x, int step, vec *y) {
  const vec x0 = x[0], x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step], x5 = x[5 * step];
  const vec two = splat(2), four = splat(4), five = splat(5);
  const vec even = sub(x4, mul(four, x2)), odd = sub(x3, mul(four, x1));
  const vec near = sub(x4, x2), far = mul(two, sub(x3, x1));
  y[0] = add(sub(mul(four, x0), mul(five, x2)), x4);
  y[1] = add(even, odd);
  y[2] = sub(even, odd);
  y[3] = add(near, far);
  y[4] = sub(near, far);
  y[5] = add(sub(mul(four, x1), mul(five, x3)), x5);
}

// A^T x, for six values that are `step` apart.
INLINE void transform_output(const vec *x, int step, vec *y) {
  const vec x1 = x[step], x2 = x[2 * step], x3 = x[3 * step], x4 = x[4 * step];
  const vec sum = add(x1, x2), difference = sub(x1, x2), outer = add(x3, x4), slope = sub(x3, x4);
  y[0] = add(add(x[0], sum), outer);
  y[1] = add(difference, mul(splat(2), slope));
  y[2] = add(sum, mul(splat(4), outer));
  y[3] = add(add(difference, mul(splat(8), slope)), x[5 * step]);
}

// To `to` (points, TILES, channels), for tiles that start at each fourth pixel of six rows.
static void transform_tiles(float *const *rows, int first, int count, int channels, float *to) {
  for (int tile = 0; tile < count; tile++) {
    for (int c = 0; c < channels; c += 4) {
      const int start = (first + tile) * OUT * channels + c;
      vec part[POINTS], result[SIDE];
      for (int column = 0; column < SIDE; column++) {
        vec pixels[SIDE];
        for (int row = 0; row < SIDE; row++) pixels[row] = load(rows[row] + start + column * channels);
        transform_input(pixels, 1, part + column * SIDE);
      }
      for (int row = 0; row < SIDE; row++) {
        transform_input(part + row, SIDE, result);
        for (int i = 0; i < SIDE; i++) store(to + (row * SIDE + i) * step_of(channels) + tile * channels + c, result[i]);
      }
    }
  }
}

// Four rows of x (4, channels) times `filter` (channels, features), for `width` * 4 of the features.
INLINE void multiply(const float *x, const float *filter, int channels, int features, float *y, int width) {
  vec sums[OUT][2];
  for (int t = 0; t < OUT; t++) for (int i = 0; i < width; i++) sums[t][i] = splat(0);
#pragma nounroll // an unrolled loop takes 1.4 times as long in V8
  for (int c = 0; c < channels; c++) {
    for (int t = 0; t < OUT; t++) {
      const vec value = wasm_v128_load32_splat(x + t * channels + c);
      for (int i = 0; i < width; i++) sums[t][i] = add(sums[t][i], mul(value, load(filter + c * features + 4 * i)));
    }
  }
  for (int t = 0; t < OUT; t++) for (int i = 0; i < width; i++) store(y + t * features + 4 * i, sums[t][i]);
}

INLINE void multiply_points(const float *x, const float *filter, int count, int channels, int features, float *y) {
  for (int point = 0; point < POINTS; point++) {
    for (int f = 0; f < features; f += 8) {
      const float *part = filter + point * channels * features + f;
      for (int tile = 0; tile < count; tile += 4) {
        const float *from = x + point * step_of(channels) + tile * channels;
        float *to = y + point * step_of(features) + tile * features + f;
        if (features - f >= 8) multiply(from, part, channels, features, to, 2);
        else multiply(from, part, channels, features, to, 1);
      }
    }
  }
}

// The compiler makes better code of sizes that it knows: those of the model of the package.
static void multiply_tiles(const float *x, const float *filter, int count, int channels, int features, float *y) {
  if (channels == 16 && features == 16) multiply_points(x, filter, count, 16, 16, y);
  else if (channels == 32 && features == 16) multiply_points(x, filter, count, 32, 16, y);
  else if (channels == 4 && features == 16) multiply_points(x, filter, count, 4, 16, y);
  else multiply_points(x, filter, count, channels, features, y);
}

// Sums of a channel over pixels, of their distance from one pixel, lest the variance be a difference of large numbers.
typedef struct {
  double sum[4], square[4];
  float pixel[4];
} Sums;

// Stores results of a row, and adds them to the sums.
INLINE void store_line(const vec *values, int width, float *y, int features, vec pixel, vec *sum, vec *square) {
  for (int k = 0; k < width; k++) {
    const vec distance = sub(values[k], pixel);
    *sum = add(*sum, distance);
    *square = add(*square, mul(distance, distance));
    store(y + k * features, values[k]);
  }
}

// Results (points, TILES, features) to the pixels of `y` that lie inside; their sums are added.
static void finish_tiles(const float *x, int row, int first, int count, int h, int w, int features, float *y, Sums *sums) {
  const int height = smaller(OUT, h - row), step = step_of(features);
  for (int f = 0; f < features; f += 4, sums++) {
    if (row == 0 && first == 0) for (int i = 0; i < 4; i++) sums->pixel[i] = 0, sums->sum[i] = sums->square[i] = 0;
    vec sum = splat(0), square = splat(0), pixel = load(sums->pixel);
    for (int tile = 0; tile < count; tile++) {
      const int column = (first + tile) * OUT, width = smaller(OUT, w - column);
      vec part[OUT * SIDE];
      for (int k = 0; k < SIDE; k++) {
        vec values[SIDE], result[OUT];
        for (int i = 0; i < SIDE; i++) values[i] = load(x + (i * SIDE + k) * step + tile * features + f);
        transform_output(values, 1, result);
        for (int i = 0; i < OUT; i++) part[i * SIDE + k] = result[i];
      }
      for (int i = 0; i < height; i++) {
        float *to = y + ((row + i) * w + column) * features + f;
        vec line[OUT];
        transform_output(part + i * SIDE, 1, line);
        if (row + i == 0 && column == 0) store(sums->pixel, pixel = line[0]);
        if (width == OUT) store_line(line, OUT, to, features, pixel, &sum, &square);
        else {
          const vec edge[OUT] = {line[0], line[1], line[2], line[3]}; // `line` stays in registers
          store_line(edge, width, to, features, pixel, &sum, &square);
        }
      }
    }
    for (int i = 0; i < 4; i++) sums->sum[i] += ((float *)&sum)[i], sums->square[i] += ((float *)&square)[i];
  }
}

// Floats of `room` that `convolve` takes.
EXPORT(roomForConvolution)
int room_for_convolution(int w, int channels, int features) {
  return SIDE * (w + SIDE) * channels + w * channels + POINTS * (step_of(channels) + step_of(features));
}

// A 3 x 3 convolution of an image of h x w pixels with a border of zeros. The image is made of a source by its kind:
// PLAIN, the source; RECTIFIED, after norm and ReLU; POOLED, then the largest of each 2 x 2 pixels; JOINED, then enlarged
// twice, with the channels of `skip` behind it.
EXPORT(convolve)
void convolve(int kind, const Source *x, const Source *skip, int h, int w, const float *filter, int features, float *y,
              Sums *sums, float *room) {
  const int channels = x->channels + (kind == JOINED ? skip->channels : 0);
  const int count = (w + OUT - 1) / OUT;
  const int length = (count * OUT + 2) * channels;
  float *lines = room, *enlarged = lines + SIDE * length;
  float *tiles = enlarged + w * channels, *results = tiles + POINTS * step_of(channels);
  for (int i = 0; i < SIDE * length; i += 4) store(lines + i, splat(0));
  int ready = 0; // rows that were made, with the one above the image
  for (int row = 0; row < h; row += OUT) {
    float *rows[SIDE];
    for (int i = 0; i < SIDE; i++) rows[i] = lines + (row + i) % SIDE * length;
    for (; ready < row + SIDE; ready++) {
      float *line = lines + ready % SIDE * length;
      if (ready > 0 && ready <= h) make_row(kind, x, skip, ready - 1, h, w, line + channels, enlarged);
      else for (int i = 0; i < length; i += 4) store(line + i, splat(0));
    }
    for (int first = 0; first < count; first += TILES) {
      const int part = smaller(TILES, count - first);
      transform_tiles(rows, first, part, channels, tiles);
      multiply_tiles(tiles, filter, part, channels, features, results);
      finish_tiles(results, row, first, part, h, w, features, y, sums);
    }
  }
}

// G g, for three numbers that are `step` apart.
INLINE void transform_taps(const float *g, int step, float *to) {
  const float sum = g[0] + g[2 * step], corner = g[0] / 24 + g[2 * step] / 6;
  to[0] = g[0] / 4;
  to[1] = -(sum + g[step]) / 6;
  to[2] = -(sum - g[step]) / 6;
  to[3] = corner + g[step] / 12;
  to[4] = corner - g[step] / 12;
  to[5] = g[2 * step];
}

// A kernel (3, 3, width * parts, out) for `convolve`: (points, channels, features). Each part gets channels of its own.
EXPORT(prepareFilter)
void prepare_filter(const float *kernel, int width, int parts, int out, int channels, int features, float *filter) {
  for (int i = 0; i < POINTS * channels * features; i += 4) store(filter + i, splat(0));
  for (int input = 0; input < width * parts; input++) {
    const int c = input / width * (channels / parts) + input % width;
    for (int f = 0; f < out; f++) {
      float part[3 * SIDE], result[SIDE];
      for (int column = 0; column < 3; column++) {
        transform_taps(kernel + (column * width * parts + input) * out + f, 3 * width * parts * out, part + column * SIDE);
      }
      for (int row = 0; row < SIDE; row++) {
        transform_taps(part + row, SIDE, result);
        for (int i = 0; i < SIDE; i++) filter[((row * SIDE + i) * channels + c) * features + f] = result[i];
      }
    }
  }
}

// A 1 x 1 convolution with a bias, after norm and ReLU, for a row of w pixels: w * out numbers.
EXPORT(mixRow)
void mix_row(const Source *x, int start, int w, const float *kernel, const float *bias, int out, float *y) {
  const float *from = x->data + start * x->channels;
  for (int column = 0; column < w; column++, from += x->channels) {
    for (int o = 0; o < out; o++) {
      vec sum = splat(0);
      for (int c = 0; c < x->channels; c += 4) {
        sum = add(sum, mul(rectify(affine(x, from, c)), load(kernel + o * x->channels + c)));
      }
      const float *parts = (float *)&sum;
      *y++ = bias[o] + ((parts[0] + parts[1]) + (parts[2] + parts[3]));
    }
  }
}

// ------------------------------------------------------------------------------------------------ the Fourier transform

// A size with its factors, its roots of unity, and room for four lines side by side and for as many parts: 6 * size vectors.
typedef struct {
  int size;
  const int *factors;
  const float *cos, *sin;
  vec *room;
} Plan;

typedef struct {
  vec re, im;
} Complex;

// A number of a line, its real parts and, `size` vectors later, its imaginary parts.
INLINE Complex get(const vec *line, int size, int i) { return (Complex){line[i], line[size + i]}; }
INLINE void put(vec *line, int size, int i, Complex value) { line[i] = value.re, line[size + i] = value.im; }
INLINE Complex plus(Complex a, Complex b) { return (Complex){add(a.re, b.re), add(a.im, b.im)}; }
INLINE Complex minus(Complex a, Complex b) { return (Complex){sub(a.re, b.re), sub(a.im, b.im)}; }

INLINE Complex turn(const Plan *plan, Complex x, int root) {
  const vec cos = splat(plan->cos[root]), sin = splat(plan->sin[root]);
  return (Complex){sub(mul(x.re, cos), mul(x.im, sin)), add(mul(x.re, sin), mul(x.im, cos))};
}

// The sums of `factor` parts, in place.
static void combine(const Plan *plan, int factor, int part, int stride, vec *to) {
  const int size = plan->size, step = size / factor;
  vec *parts = plan->room + 4 * size;
  for (int k = 0; k < part; k++) {
    for (int q = 0; q < factor; q++) put(parts, size, q, turn(plan, get(to, size, q * part + k), q * k * stride));
    for (int r = 0; r < factor; r++) {
      Complex sum = get(parts, size, 0);
      for (int q = 1, root = r * step; q < factor; q++) {
        sum = plus(sum, turn(plan, get(parts, size, q), root));
        root += r * step;
        if (root >= size) root -= size;
      }
      put(to, size, r * part + k, sum);
    }
  }
}

// As `combine` for four parts, whose roots are 1, -i, -1 and i.
static void combine_four(const Plan *plan, int part, int stride, vec *to) {
  const int size = plan->size;
  for (int k = 0; k < part; k++) {
    const Complex a = get(to, size, k), b = turn(plan, get(to, size, part + k), k * stride);
    const Complex c = turn(plan, get(to, size, 2 * part + k), 2 * k * stride);
    const Complex d = turn(plan, get(to, size, 3 * part + k), 3 * k * stride);
    const Complex even = plus(a, c), odd = plus(b, d), first = minus(a, c), second = minus(b, d);
    put(to, size, k, plus(even, odd));
    put(to, size, 2 * part + k, minus(even, odd));
    put(to, size, part + k, (Complex){add(first.re, second.im), sub(first.im, second.re)});
    put(to, size, 3 * part + k, (Complex){sub(first.re, second.im), add(first.im, second.re)});
  }
}

// Transforms each stride-th number of a line to `count` numbers: first each factor-th of them (decimation in time).
static void transform(const Plan *plan, const int *factor, int count, const vec *from, int stride, vec *to) {
  const int part = count / *factor;
  for (int q = 0; q < *factor; q++) {
    if (part > 1) transform(plan, factor + 1, part, from + q * stride, stride * *factor, to + q * part);
    else put(to, plan->size, q, get(from, plan->size, q * stride));
  }
  if (*factor == 4) combine_four(plan, part, stride, to);
  else combine(plan, *factor, part, stride, to);
}

// Transforms four lines of the room to the numbers that follow them.
static vec *transform_lines(const Plan *plan) {
  vec *lines = plan->room, *result = lines + 2 * plan->size;
  if (plan->size > 1) transform(plan, plan->factors, plan->size, lines, 1, result);
  else put(result, 1, 0, get(lines, 1, 0));
  const vec norm = splat(__builtin_sqrtf(1.0f / plan->size));
  for (int i = 0; i < 2 * plan->size; i++) result[i] = mul(result[i], norm);
  return result;
}

// Transforms the columns of a plane whose width is a multiple of 4, in place.
EXPORT(transformColumns)
void transform_columns(float *re, float *im, int width, const Plan *plan) {
  for (int column = 0; column < width; column += 4) {
    for (int i = 0; i < plan->size; i++) {
      put(plan->room, plan->size, i, (Complex){load(re + i * width + column), load(im + i * width + column)});
    }
    const vec *result = transform_lines(plan);
    for (int i = 0; i < plan->size; i++) {
      store(re + i * width + column, result[i]);
      store(im + i * width + column, result[plan->size + i]);
    }
  }
}

// Turns 4 x 4 numbers over; lines of `from` and `to` are `in` and `out` numbers apart.
INLINE void transpose_block(const float *from, int in, float *to, int out) {
  const vec a = load(from), b = load(from + in), c = load(from + 2 * in), d = load(from + 3 * in);
  const vec ab = wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), ab2 = wasm_i32x4_shuffle(a, b, 2, 6, 3, 7);
  const vec cd = wasm_i32x4_shuffle(c, d, 0, 4, 1, 5), cd2 = wasm_i32x4_shuffle(c, d, 2, 6, 3, 7);
  store(to, wasm_i64x2_shuffle(ab, cd, 0, 2));
  store(to + out, wasm_i64x2_shuffle(ab, cd, 1, 3));
  store(to + 2 * out, wasm_i64x2_shuffle(ab2, cd2, 0, 2));
  store(to + 3 * out, wasm_i64x2_shuffle(ab2, cd2, 1, 3));
}

// Turns a plane over; its sides are multiples of 4.
EXPORT(transpose)
void transpose(const float *from, int h, int w, float *to) {
  for (int row = 0; row < h; row += 4) {
    for (int column = 0; column < w; column += 4) transpose_block(from + row * w + column, w, to + column * h + row, h);
  }
}

// -------------------------------------------------------------------------------------------------------------- scores

// Filters the columns of a plane, then its rows, where the filters lie inside. The widths of the plane and of the result
// are multiples of 4; `line` has room for a row and its margin.
EXPORT(filterPlane)
void filter_plane(const float *plane, int width, const float *down, int downs, const float *across, int acrosses, int rows,
                  int columns, float *line, float *to) {
  for (int row = 0; row < rows; row++, plane += width, to += columns) {
    for (int i = 0; i < width; i += 4) {
      vec sum = splat(0);
      for (int t = 0; t < downs; t++) sum = add(sum, mul(splat(down[t]), load(plane + t * width + i)));
      store(line + i, sum);
    }
    for (int i = 0; i < columns; i += 4) {
      vec sum = splat(0);
      for (int t = 0; t < acrosses; t++) sum = add(sum, mul(splat(across[t]), load(line + i + t)));
      store(to + i, sum);
    }
  }
}
