#include "preprocessing.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace {

using Pixels = std::vector<unsigned char>;

// Scales the middle axis of pixels (outer, length, inner) to `size`: antialiased, in integers, as `source_resize` says.
Pixels scaled_axis(const Pixels& pixels, int outer, int length, int inner, int size) {
    Pixels result(static_cast<std::size_t>(outer) * size * inner);
    const double f = std::max(static_cast<double>(length) / size, 1.0);
    for (int i = 0; i < size; ++i) {
        const double p = (i + 0.5) * (static_cast<double>(length) / size);
        const int first = std::max(0, static_cast<int>(std::floor(p - f + 0.5)));
        const int last = std::min(length, static_cast<int>(std::floor(p + f + 0.5)));
        std::vector<double> parts;
        double sum_of_parts = 0;
        for (int j = first; j < last; ++j) {
            parts.push_back(std::max(0.0, 1 - std::abs(j + 0.5 - p) / f));
            sum_of_parts += parts.back();
        }
        std::vector<std::int64_t> weights;  // times 2**22
        for (double part : parts) weights.push_back(static_cast<std::int64_t>(part / sum_of_parts * (1 << 22) + 0.5));
        for (int o = 0; o < outer; ++o) {
            for (int k = 0; k < inner; ++k) {
                std::int64_t sum = 1 << 21;
                for (int j = first; j < last; ++j) {
                    sum += weights[j - first] * pixels[(static_cast<std::size_t>(o) * length + j) * inner + k];
                }
                result[(static_cast<std::size_t>(o) * size + i) * inner + k] =
                    static_cast<unsigned char>(std::min<std::int64_t>(255, sum >> 22));
            }
        }
    }
    return result;
}

// Scales first along the longer side, then the other, rounded after each.
Picture scaled(const Picture& picture, int columns, int rows) {
    const auto& [width, height, data] = picture;
    if (height > width) {
        return {columns, rows, scaled_axis(scaled_axis(data, 1, height, width * 3, rows), rows, width, 3, columns)};
    }
    return {columns, rows, scaled_axis(scaled_axis(data, height, width, 3, columns), 1, height, columns * 3, rows)};
}

// Copies lines of one picture from a place on into another one, which is as large or smaller; or the other way round.
void copy(const Picture& from, int from_left, int from_top, Picture& to, int to_left, int to_top) {
    const int width = std::min(from.width - from_left, to.width - to_left);
    const int height = std::min(from.height - from_top, to.height - to_top);
    for (int y = 0; y < height; ++y) {
        const auto start = from.data.begin() + 3l * ((from_top + y) * static_cast<long>(from.width) + from_left);
        std::copy(start, start + 3l * width,
                  to.data.begin() + 3l * ((to_top + y) * static_cast<long>(to.width) + to_left));
    }
}

// Does what `source_resize` says to a picture of any size.
Picture make_square(const Picture& picture, const nlohmann::json& source) {
    const std::string how = source.at("how");
    const int n = source.at("size");
    if (how == "crop") {
        const int s = std::min(picture.width, picture.height);
        Picture part{s, s, Pixels(3ul * s * s)};
        copy(picture, (picture.width - s) / 2, (picture.height - s) / 2, part, 0, 0);
        return scaled(part, n, n);
    }
    if (how == "pad") {
        const std::int64_t m = std::max(picture.width, picture.height);
        const auto side = [&](std::int64_t old) { return std::max(1, static_cast<int>((2 * old * n + m) / (2 * m))); };
        const Picture inner = scaled(picture, side(picture.width), side(picture.height));
        Picture square{n, n, Pixels(3ul * n * n)};
        copy(inner, 0, 0, square, (n - inner.width) / 2, (n - inner.height) / 2);
        return square;
    }
    if (how == "stretch") return scaled(picture, n, n);
    throw std::runtime_error("this program cannot " + how);
}

// Resizes a square of numbers: bilinear, half-pixel centers, no antialiasing, edges repeated.
std::vector<double> to_size(const std::vector<double>& pixels, int side, int size) {
    std::vector<double> result;
    const auto at = [&](int i) { return std::clamp((i + 0.5) * side / size - 0.5, 0.0, side - 1.0); };
    for (int i = 0; i < size; ++i) {
        const int top = static_cast<int>(at(i)), bottom = std::min(top + 1, side - 1);
        const double down = at(i) - top;
        for (int j = 0; j < size; ++j) {
            const int left = static_cast<int>(at(j)), right = std::min(left + 1, side - 1);
            const double across = at(j) - left;
            const auto line = [&](int y) {
                return pixels[y * side + left] * (1 - across) + pixels[y * side + right] * across;
            };
            result.push_back(line(top) * (1 - down) + line(bottom) * down);
        }
    }
    return result;
}

bool is_grey(const Picture& picture) {
    for (std::size_t i = 0; i < picture.data.size(); i += 3) {
        if (picture.data[i] != picture.data[i + 1] || picture.data[i] != picture.data[i + 2]) return false;
    }
    return true;
}

}  // namespace

std::vector<float> prepare(Picture picture, const nlohmann::json& how) {
    const std::vector<double> mean = how.at("mean"), std = how.at("std");
    const std::string dtype = how.value("pixel_dtype", "uint8");
    if (dtype != "uint8" || (mean.size() != 1 && mean.size() != 3)) {
        throw std::runtime_error("the model takes " + std::to_string(mean.size()) + " channels of " + dtype);
    }
    if (how.contains("source_resize")) picture = make_square(picture, how["source_resize"]);
    const int n = how.at("native_size"), size = how.at("size");
    if (picture.width != n || picture.height != n) {
        throw std::runtime_error("the picture is " + std::to_string(picture.width) + "x" +
                                 std::to_string(picture.height) + " pixels, expected " + std::to_string(n) + " a side");
    }
    if (mean.size() == 1 && !is_grey(picture)) throw std::runtime_error("the picture has colours, expected a grey one");
    const auto& padding = how.at("padding");
    const int top = padding.at("top"), left = padding.at("left");
    const int side = top + n + padding.at("bottom").get<int>();  // as many columns as rows
    const double pixel_max = how.at("pixel_max");
    std::vector<float> result;
    for (std::size_t c = 0; c < mean.size(); ++c) {
        const auto& value = padding.at("value");
        std::vector<double> padded(static_cast<std::size_t>(side) * side, value.is_array() ? value[c] : value);
        for (int y = 0; y < n; ++y) {
            for (int x = 0; x < n; ++x) {
                padded[(top + y) * side + left + x] = picture.data[3 * (y * n + x) + c] / pixel_max;
            }
        }
        for (double pixel : to_size(padded, side, size)) {
            result.push_back(static_cast<float>((pixel - mean[c]) / std[c]));
        }
    }
    return result;
}
