// Files of pictures, JPEG and PNG, as a viewer shows them on a white page.
#pragma once

#include <filesystem>
#include <vector>

// Pixels of 8 bits, red, green and blue, line by line.
struct Picture {
    int width = 0;
    int height = 0;
    std::vector<unsigned char> data;
};

// Returns a picture upright, on white where it is transparent. Throws std::runtime_error.
Picture read_picture(const std::filesystem::path& path);
