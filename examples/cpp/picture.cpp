#include "picture.hpp"

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <libexif/exif-data.h>
#include <png.h>
#include <turbojpeg.h>

#include "bundle.hpp"

namespace {

Picture read_jpeg(const std::vector<unsigned char>& content) {
    const std::unique_ptr<void, int (*)(void*)> decoder(tjInitDecompress(), tjDestroy);
    Picture picture;
    int subsampling, colours;
    if (tjDecompressHeader3(decoder.get(), content.data(), content.size(), &picture.width, &picture.height,
                            &subsampling, &colours) != 0) {
        throw std::runtime_error(tjGetErrorStr2(decoder.get()));
    }
    if (colours == TJCS_CMYK || colours == TJCS_YCCK) throw std::runtime_error("is in CMYK, expected RGB or grey");
    picture.data.resize(3ul * picture.width * picture.height);
    if (tjDecompress2(decoder.get(), content.data(), content.size(), picture.data.data(), picture.width, 0,
                      picture.height, TJPF_RGB, 0) != 0) {
        throw std::runtime_error(tjGetErrorStr2(decoder.get()));
    }
    return picture;
}

Picture read_png(const std::vector<unsigned char>& content) {
    png_image image = {};
    image.version = PNG_IMAGE_VERSION;
    const std::unique_ptr<png_image, void (*)(png_image*)> whole(&image, png_image_free);
    if (!png_image_begin_read_from_memory(&image, content.data(), content.size())) {
        throw std::runtime_error(image.message);
    }
    if (image.format & PNG_FORMAT_FLAG_LINEAR) throw std::runtime_error("has more than 8 bits a channel");
    image.format = PNG_FORMAT_RGBA;
    std::vector<unsigned char> rgba(PNG_IMAGE_SIZE(image));
    if (!png_image_finish_read(&image, nullptr, rgba.data(), 0, nullptr)) throw std::runtime_error(image.message);
    Picture picture{static_cast<int>(image.width), static_cast<int>(image.height), {}};
    picture.data.reserve(rgba.size() / 4 * 3);
    for (std::size_t i = 0; i < rgba.size(); i += 4) {
        const int alpha = rgba[i + 3];
        for (std::size_t c = 0; c < 3; ++c) {
            picture.data.push_back((rgba[i + c] * alpha + 255 * (255 - alpha) + 127) / 255);  // on white, rounded
        }
    }
    return picture;
}

// Returns what EXIF says of how a picture lies: 1 to 8, 1 is upright.
int orientation_of(const std::vector<unsigned char>& content) {
    const std::unique_ptr<ExifData, void (*)(ExifData*)> exif(
        exif_data_new_from_data(content.data(), static_cast<unsigned int>(content.size())), exif_data_unref);
    const ExifEntry* entry = exif ? exif_content_get_entry(exif->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION) : nullptr;
    if (!entry || entry->format != EXIF_FORMAT_SHORT || entry->components != 1) return 1;
    return exif_get_short(entry->data, exif_data_get_byte_order(exif.get()));
}

// Sets a picture upright that lies as an orientation of EXIF says: 5 to 8 have rows and columns exchanged.
Picture upright(const Picture& picture, int orientation) {
    if (orientation < 2 || orientation > 8) return picture;
    const bool is_turned = orientation >= 5;
    const bool is_mirrored = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    const bool is_upside_down = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
    Picture result{is_turned ? picture.height : picture.width, is_turned ? picture.width : picture.height, {}};
    result.data.reserve(picture.data.size());
    for (int y = 0; y < result.height; ++y) {
        for (int x = 0; x < result.width; ++x) {
            const int column = is_mirrored ? result.width - 1 - x : x;
            const int row = is_upside_down ? result.height - 1 - y : y;
            const auto [stored_x, stored_y] = is_turned ? std::pair(row, column) : std::pair(column, row);
            const auto* found = &picture.data[3 * (1ul * stored_y * picture.width + stored_x)];
            result.data.insert(result.data.end(), found, found + 3);
        }
    }
    return result;
}

}  // namespace

Picture read_picture(const std::filesystem::path& path) {
    const auto content = read_file(path);
    try {
        const bool is_jpeg = content.size() > 2 && content[0] == 0xff && content[1] == 0xd8;
        return is_jpeg ? upright(read_jpeg(content), orientation_of(content)) : read_png(content);
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(path.string() + ": " + error.what());
    }
}
