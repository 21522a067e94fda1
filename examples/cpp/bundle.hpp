// A bundle: its files, whose hashes are checked, its manifest and the recorded inputs and outputs of its model.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

// Numbers of a size each: `num` images of `size` numbers.
struct Array {
    std::vector<float> data;
    std::size_t num = 0;
    std::size_t size = 0;
};

struct Bundle {
    std::filesystem::path folder;
    nlohmann::json manifest;
    Array inputs;
    Array outputs;
};

// Returns the content of a file. Throws std::runtime_error, as all functions here.
std::vector<unsigned char> read_file(const std::filesystem::path& path);

// Compares every file that SHA256SUMS lists with its hash, and reads what is needed; what it does not list is not read.
Bundle open_bundle(const std::filesystem::path& folder);
